"""Frozen teachers of Unmasked Teacher: where they look in a frame, and what they say of each of its patches.

A teacher maps frames (B, 3, H, W), standardised, and a number k of layers to

    attention  (B, N), of the class token to the patches in the last block, mean over heads; >= 0
    features   (k, B, N, C), of the last k blocks, L2-normalised, in order of the blocks

with N patches in reading order; it has `width`, C, and `stride`, the side of its patches in pixels.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.hog import hog_targets
from sslcourse.errors import InputError
from sslcourse.nn.clip import CLIPViT
from sslcourse.nn.patches import patchify
from sslcourse.nn.vit import ViT, attention


class Teacher(nn.Module):
    """See the module's text."""

    width: int
    stride: int


class CLIPTeacher(Teacher):
    """CLIP's image tower; features are its patches after the last norm and the projection."""

    def __init__(self, vit: CLIPViT) -> None:
        super().__init__()
        self.vit, self.width, self.stride = vit, vit.num_features, vit.patch_size

    @torch.no_grad()
    def forward(self, frames: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Attention and features, as in the module's text."""
        x, outputs = self.vit.embed(frames), []
        blocks: list[Any] = list(self.vit.transformer.resblocks)
        look = torch.empty(0)
        for block in blocks:
            if block is blocks[-1]:
                how = block.attn
                look = attention(block.ln_1(x), how.in_proj_weight, how.n_heads, True, bias=how.in_proj_bias)[1]
            x = block(x)
            outputs.append(F.normalize(self.vit.proj(self.vit.ln_post(x[:, 1:])), dim=-1))
        return look[:, :, 0, 1:].mean(dim=1), torch.stack(outputs[-k:])


class ViTTeacher(Teacher):
    """Any ViT of ours with a class token: DINO's, say."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        if vit.cls_token is None:
            raise InputError("a teacher has to have a class token, whose attention says where to look.")
        self.vit, self.width, self.stride = vit, vit.num_features, vit.stride

    @torch.no_grad()
    def forward(self, frames: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Attention and features, as in the module's text."""
        lead = self.vit.num_prefix
        look = self.vit.get_last_attention(frames)[:, :, 0, lead:].mean(dim=1)
        layers = self.vit.get_intermediate_layers(frames, k)
        return look, F.normalize(torch.stack([layer[:, lead:] for layer in layers]), dim=-1)


class HogTeacher(Teacher):
    """No network: it looks where gradients are strong and says their histogram, the same for every layer.

    A stand-in for where no trained teacher is at hand.
    """

    width = 108

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.stride = patch_size

    @torch.no_grad()
    def forward(self, frames: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Attention and features, as in the module's text."""
        gray = F.pad(frames.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        dx, dy = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2], gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
        strength = patchify(torch.hypot(dx, dy), self.stride).mean(dim=-1) + 1e-3
        features = F.normalize(hog_targets(frames, self.stride, cell=self.stride // 2), dim=-1)
        return strength / strength.sum(dim=1, keepdim=True), features.expand(k, -1, -1, -1)


def teacher_of(run: str, patch_size: int) -> Teacher:
    """The teacher in a run folder or in weights that come with the repository; `HogTeacher` for "". It is frozen.

    Raises:
        InputError: a run whose backbone is neither CLIP's ViT nor one of ours with a class token.
    """
    if not run:
        return HogTeacher(patch_size)
    from sslcourse.train.checkpoint import load_model
    from sslcourse.zoo.weights import SHIPPED, shipped

    network = cast(Any, load_model(shipped(run) if run in SHIPPED else run)).backbone
    if isinstance(network, CLIPViT):
        return CLIPTeacher(network).requires_grad_(False)
    if isinstance(network, ViT):
        return ViTTeacher(network).requires_grad_(False)
    raise InputError(
        f"{run} holds a {type(network).__name__}; a teacher is a ViT with a class token: train one with "
        "`sslcourse pretrain clip --data captions --backbone vit_mini_patch8 --out RUN` and name RUN."
    )
