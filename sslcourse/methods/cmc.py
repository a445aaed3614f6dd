"""CMC: contrastive multiview coding, where the lightness of an image is told from the colours of others, and back.

Tian, Krishnan, Isola 2019, "Contrastive multiview coding", arXiv:1906.05849:

    for a batch of N images, which have two memories each:
        one random view of every image, split into L and ab, is two views                     -> `views`, `both`
        v_L = f_L(L), v_ab = f_ab(ab)                                                         -> `embed`
        loss = NCE of v_L among the memories of ab + NCE of v_ab among those of L (Eq. 4)     -> `forward`
        remember both                                                                         -> `forward`
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcourse.data.augment import Augment
from sslcourse.methods.colorization import Lightness
from sslcourse.methods.instance_discrimination import InstanceDiscrimination
from sslcourse.nn.backbones import backbone


class LightAndColor(Lightness):
    """Two networks side by side, one sees L and one sees ab of a standardised image; what CMC keeps."""

    def __init__(self, light: Any, color: Any, view: Augment) -> None:
        super().__init__(light, view.mean, view.std)
        self.color = color
        self.num_features = light.num_features + color.num_features

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the features of the lightness and of the colours, (B, num_features / 2) each."""
        return self.inner(self.grey(x)), self.color(self.lab(x)[:, [1, 2, 1]] / 50)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.both(x), dim=1)


class CMC(InstanceDiscrimination):
    """CMC: the lightness of an image is told from the colours of others, and the other way round."""

    name: ClassVar[str] = "cmc"
    embeddings: ClassVar[int] = 2

    def network(self) -> Any:
        light, color = (backbone(self.config.backbone, self.config.augment.size) for _ in range(2))
        return LightAndColor(light, color, self.config.augment)

    def embed(self, x: Tensor) -> list[Tensor]:
        return [normalize(head(h), dim=1) for head, h in zip(self.heads, self.backbone.both(x), strict=True)]


_CPU = InstanceDiscrimination.PRESETS["cpu"]
CMC.PRESETS = {
    # For a CPU, not tuned. Colours of `Shapes` are random: what both views tell is where the outline is.
    "cpu": replace(_CPU, augment=Augment(32, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)),
    # Section 4.1 and appendix: two ResNet-50, 16,384 negatives, lr 0.03 for 256 images, 200 epochs.
    "imagenet_resnet50": replace(
        InstanceDiscrimination.PRESETS["imagenet_resnet50"], negatives=16384, proximal=0.0,
        augment=Augment(224, scale=(0.2, 1.0), jitter_p=0.0, gray=0.0, blur=0.0),
    ),
}  # fmt: skip
