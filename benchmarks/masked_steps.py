"""One training step, forward and backward, of MAE, UM-MAE and VideoMAE: what leaving hidden patches out is worth.

MAE has a ViT-S/16 and a decoder of 256 x 4, so that decoder and encoder are to each other about as in the paper's
ViT-B (8 x 512). The two others compare what the papers compare: UM-MAE with SimMIM on one Swin, which has to be given
all patches; VideoMAE with itself on all tokens.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Pair, Row
from sslcourse import methods
from sslcourse.data.rng import step_generator
from sslcourse.losses.masked import mae_loss
from sslcourse.methods.mae import MAE
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE
from sslcourse.methods.videomae import VideoMAE

BATCH = 4
SHAPE: dict[str, Any] = {"decoder_dim": 256, "decoder_depth": 4, "decoder_heads": 8, "target": "pixels"}


def _views(model: Any, *shape: int) -> list[Tensor]:
    return model.views(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=step_generator(0, 0)), step_generator(0, 1)
    )


def _step(model: Any, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Forward and backward; gradients are thrown away. The loss is what a check compares."""

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value.detach()

    return step


def _mae(**changes: Any) -> Any:
    return methods.build(MAE, MAE.Config("vit_small_patch16", **(SHAPE | changes)))


def mae_all_tokens() -> Pair:
    """The ablation of table 1c: hidden patches go through the encoder, too, as mask tokens."""
    ours, theirs = _mae(), _mae(encoder_mask_tokens=True)
    views = _views(ours, BATCH, 3, 224, 224)
    return _step(ours, lambda: ours(views)["loss"]), _step(theirs, lambda: theirs(views)["loss"])


def mae_lightly() -> Pair:
    """lightly's modules around timm's ViT as its MAE example puts them together, with our weights and our mask."""
    from lightly.models import utils
    from lightly.models.modules.masked_autoencoder_timm import MAEDecoderTIMM
    from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import vit_small_patch16_224

    ours = _mae()
    vit = vit_small_patch16_224(num_classes=0)
    encoder = MaskedVisionTransformerTIMM(vit=vit)
    decoder = MAEDecoderTIMM(
        num_patches=196, patch_size=16, embed_dim=384, decoder_embed_dim=256, decoder_depth=4, decoder_num_heads=8
    )
    vit.load_state_dict(ours.backbone.state_dict())
    names = {"embed": "decoder_embed", "blocks": "decoder_blocks", "norm": "decoder_norm", "head": "decoder_pred"}
    weights = {"decoder_pos_embed": ours.decoder.pos_embed}
    for key, value in ours.decoder.named_parameters():
        first, *rest = key.split(".")
        weights[".".join([names.get(first, first), *rest])] = value
    decoder.load_state_dict(weights)
    peer = torch.nn.ModuleList([encoder, decoder])
    x, noise = views = _views(ours, BATCH, 3, 224, 224)

    def loss() -> Tensor:
        order = noise.argsort(dim=1) + 1  # 0 is the class token
        keep, hidden = torch.cat([torch.zeros_like(order[:, :1]), order[:, :49]], dim=1), order[:, 49:]
        tokens = utils.repeat_token(decoder.mask_token, (len(x), 197))
        tokens = decoder.decode(utils.set_at_index(tokens, keep, decoder.embed(encoder.encode(x, idx_keep=keep))))
        pred = decoder.predict(utils.get_at_index(tokens, hidden))
        return (pred - utils.get_at_index(utils.patchify(x, 16), hidden - 1)).square().mean()

    return _step(ours, lambda: ours(views)["loss"]), _step(peer, loss)


def ummae() -> Pair:
    """Both methods' presets for 32 px, batch 64, with the Swin of one and the same sizes."""
    sides = []
    for method, settings in ((UMMAE, UMMAE.PRESETS["cpu"]), (SimMIM, SimMIM.PRESETS["cpu_swin"])):
        model: Any = methods.build(method, replace(settings, backbone="swin_mini"))
        views = _views(model, 64, 3, 32, 32)
        sides.append(_step(model, lambda model=model, views=views: model(views)["loss"]))  # type: ignore[misc]
    return sides[0], sides[1]


def videomae() -> Pair:
    """16 frames of 112 px in tubelets of 2 x 16 x 16, ViT-S, a decoder of 192 x 4: the paper's proportions, a quarter
    of its tokens. The peer's encoder gets all of them; the decoder and the loss are the same."""
    view = replace(VideoMAE.Config().augment, size=112)
    shape: dict[str, Any] = {"decoder_dim": 192, "decoder_depth": 4, "decoder_heads": 3, "augment": view}
    model: Any = methods.build(VideoMAE, VideoMAE.Config("vit_small_patch16", **shape))
    views = _views(model, 2, 3, 16, 112, 112)
    x, mask = views
    places = torch.arange(mask.shape[1]).expand(len(x), -1)

    def full() -> Tensor:
        return mae_loss(model.decoder(model.backbone.forward_features(x), places), model.target(x), mask)

    return _step(model, lambda: model(views)["loss"]), _step(model, full)


MAE_STEP = "MAE step, ViT-S/16, 75 %, batch 4"
UMMAE_STEP = "UM-MAE step, Swin mini, 32 px, batch 64"
VIDEO_STEP = "VideoMAE step, ViT-S, 90 %, 2 clips of 16 x 112 px"
SIMMIM = ("SimMIM on the same Swin", ummae)
ROWS = [
    Row("mae-step", MAE_STEP, "all tokens in the encoder", mae_all_tokens, target=1.75, check=None),
    Row("mae-step", MAE_STEP, "lightly's modules on timm", mae_lightly, target=1.2, requires=("lightly", "timm")),
    Row("ummae", UMMAE_STEP, *SIMMIM, target=1.6, check=None),
    Row("ummae", "its peak memory", *SIMMIM, target=0.6, kind="memory", check=None),
    Row("videomae-step", VIDEO_STEP, "all tokens in the encoder", videomae, target=3.0, check=None),
]
