"""CLIP: its loss and a whole training step against open_clip's, the tiled loss's memory, a zero-shot classifier."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row, gradients
from sslcourse.evaluate.zeroshot import prompt_logits
from sslcourse.losses.clip import clip_loss
from sslcourse.nn.clip import CLIP, CLIPViT
from sslcourse.nn.text import TextTransformer
from sslcourse.zoo.clip import clip

LOG_SCALE = torch.tensor(1 / 0.07).log()
TILE = 256


def _pairs(n: int, d: int = 512) -> tuple[Tensor, Tensor]:
    """Embeddings of n images and of their texts, which resemble each other."""
    generator = torch.Generator().manual_seed(0)
    img = torch.randn(n, d, generator=generator)
    return img, img + torch.randn(n, d, generator=generator)


def loss_against_open_clip() -> Pair:
    """Normalising included, which open_clip leaves to its model."""
    from open_clip.loss import ClipLoss

    official = ClipLoss()
    img, txt = _pairs(1024)

    def theirs(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
        return official(F.normalize(a, dim=1), F.normalize(b, dim=1), s.exp())

    return lambda: gradients(clip_loss, img, txt, LOG_SCALE), lambda: gradients(theirs, img, txt, LOG_SCALE)


def step_against_open_clip() -> Pair:
    """The same weights in both: forward, loss, backward."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP as Official

    vision = {"layers": 4, "width": 128, "head_width": 32, "patch_size": 8, "image_size": 64}
    text = {"context_length": 32, "vocab_size": 1024, "width": 128, "heads": 4, "layers": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        official, official_loss = Official(128, vision, text), ClipLoss()  # type: ignore[arg-type]
        ours = CLIP(CLIPViT(64, 8, 128, 4, 4, 128), TextTransformer(1024, 32, 128, 4, 4, 128))
    ours.load_state_dict(clip(official.state_dict(), ours))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 64, 64, generator=generator)
    tokens = torch.randint(1, 1000, (64, 32), generator=generator)
    tokens[:, -1] = 1023  # the end mark has the largest id

    def step(model: Any, loss: Tensor) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        loss.backward()
        return loss.detach(), model.visual.conv1.weight.grad.clone()

    def our_step() -> tuple[Tensor, Tensor]:
        return step(ours, clip_loss(ours.encode_image(x), ours.encode_text(tokens), ours.logit_scale))

    def their_step() -> tuple[Tensor, Tensor]:
        return step(official, official_loss(*official(x, tokens)))

    return our_step, their_step


def plain_cross_entropy(img: Tensor, txt: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3 of the paper as it stands: (N, N) logits, cross-entropy both ways."""
    logits = log_scale.exp() * F.normalize(img, dim=1) @ F.normalize(txt, dim=1).T
    pair = torch.arange(len(img))
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


def _tiled(img: Tensor, txt: Tensor, log_scale: Tensor) -> Tensor:
    return clip_loss(img, txt, log_scale, tile=TILE)


def tiled_against_plain() -> Pair:
    img, txt = _pairs(4096)
    return lambda: gradients(_tiled, img, txt, LOG_SCALE), lambda: gradients(plain_cross_entropy, img, txt, LOG_SCALE)


def zero_shot() -> Pair:
    """Class weights are there; the peer asks one class after the other."""
    generator = torch.Generator().manual_seed(0)
    img = torch.randn(10_000, 512, generator=generator)
    weights = F.normalize(torch.randn(512, 1000, generator=generator), dim=0)

    def one_by_one() -> Tensor:
        z = F.normalize(img, dim=1)
        return torch.stack([100.0 * (z @ weights[:, c]) for c in range(weights.shape[1])], dim=1)

    return lambda: prompt_logits(img, weights), one_by_one


def _close_logits(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)  # logits go up to 100


OPEN_CLIP = ("open_clip",)
MEMORY = "its peak memory, N = 4096, tile = 256"
SHOTS = "zero-shot logits of 10,000 features for 1,000 classes, D = 512"
STEP = "forward + loss + backward, ViT 128 x 4 at 64 px, text 128 x 4, batch 64"

ROWS = [
    Row(
        "clip-loss",
        "CLIP loss forward + backward, N = 1024, D = 512",
        "open_clip ClipLoss",
        loss_against_open_clip,
        target=1.1,
        requires=OPEN_CLIP,
    ),
    Row("clip-step", STEP, "open_clip CLIP", step_against_open_clip, target=1.1, requires=OPEN_CLIP),
    Row("clip-loss", MEMORY, "plain cross-entropy", tiled_against_plain, target=0.25, kind="memory"),
    Row("zero-shot", SHOTS, "a loop over classes", zero_shot, target=2.0, check=_close_logits),
]
