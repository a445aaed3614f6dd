"""A step of DINO, Sinkhorn and KoLeo against lightly's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Pair, Row, gradients
from sslcourse import methods
from sslcourse.data.rng import step_generator
from sslcourse.losses.koleo import koleo
from sslcourse.losses.swav import sinkhorn
from sslcourse.methods.dino import DINO

BATCH, LOCAL, PROTOTYPES, MOMENTUM = 2, 10, 4096, 0.996


def dino_step() -> Pair:
    """ViT-S/16, two crops of 224 px and ten of 96, forward, backward and the teacher's move; the same weights.

    The peer is what lightly's DINO example puts together, which takes one crop after the other, around timm's ViT.
    """
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from timm.models.vision_transformer import vit_small_patch16_224

    preset = DINO.PRESETS["vit_small"]
    ours: Any = methods.build("dino", replace(preset, prototypes=PROTOTYPES, n_local=LOCAL, m=MOMENTUM))
    images = torch.randint(256, (BATCH, 3, 256, 256), generator=step_generator(0, 0), dtype=torch.uint8)
    views = ours.views(images, step_generator(0, 1))

    def pair() -> nn.ModuleList:
        vit = vit_small_patch16_224(num_classes=0, dynamic_img_size=True)
        vit.load_state_dict(ours.backbone.state_dict())
        head = DINOProjectionHead(384, preset.hidden, preset.bottleneck, PROTOTYPES)
        linear = [layer for layer in ours.teacher["head"].mlp if isinstance(layer, nn.Linear)]
        same = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
        for mine, theirs in zip(linear, same, strict=True):
            theirs.load_state_dict(mine.state_dict())
        with torch.no_grad():
            v = head.last_layer.weight_v
            v.copy_(next(p for p in ours.teacher["head"].last_layer.parameters() if p.shape == v.shape))
        return nn.ModuleList([vit, head])

    student, teacher = pair(), pair()
    deactivate_requires_grad(teacher)
    criterion = DINOLoss(PROTOTYPES, teacher_temp=preset.tt_start, student_temp=preset.ts)

    def through(network: nn.ModuleList, x: Tensor) -> Tensor:
        return network[1](network[0](x))

    def mine() -> Tensor:
        ours.zero_grad(set_to_none=True)
        loss = ours(views, progress=0.0)["loss"]
        loss.backward()
        ours.after_step(0, 100)
        return loss.detach()

    def theirs() -> Tensor:
        student.zero_grad(set_to_none=True)
        with torch.no_grad():
            targets = [through(teacher, x) for x in views[:2]]
        loss = criterion(targets, [through(student, x) for x in views], teacher_temp=preset.tt_start)
        loss.backward()
        update_momentum(student, teacher, m=MOMENTUM)
        return loss.detach()

    return mine, theirs


def sinkhorn_pair() -> Pair:
    """Three iterations on the scores of a batch; ours in the log domain at first, which does not overflow."""
    from lightly.loss.swav_loss import sinkhorn as published

    scores = torch.randn(1024, 3000, generator=torch.Generator().manual_seed(0)) / 8
    return lambda: sinkhorn(scores), lambda: published(scores)


def koleo_pair() -> Pair:
    from lightly.loss import KoLeoLoss

    x = torch.randn(2048, 384, generator=torch.Generator().manual_seed(0))
    loss = KoLeoLoss()
    return lambda: gradients(koleo, x), lambda: gradients(loss, x)


def near(a: Tensor, b: Tensor) -> None:
    """timm resizes position embeddings by another filter, so the small crops differ a little."""
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


Task = tuple[str, str, Callable[[], Pair], float, Any]
TASKS: tuple[Task, ...] = (
    ("dino-step", f"DINO step, ViT-S/16, 2 x 224 + {LOCAL} x 96 px, batch {BATCH}", dino_step, 1.2, near),
    ("sinkhorn", "Sinkhorn, 1,024 x 3,000, 3 iterations", sinkhorn_pair, 1.0, close),
    ("koleo", "KoLeo forward + backward, N = 2,048, D = 384", koleo_pair, 1.0, close),
)
ROWS = [
    Row(name, what, "lightly", prepare, target=target, check=check, requires=("lightly",))
    for name, what, prepare, target, check in TASKS
]
