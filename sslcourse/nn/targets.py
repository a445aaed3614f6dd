"""What masked methods predict: pixels, HOG, principal components, the tokens of a codebook, what another network says.

A target is a module with `values`, the width of a prediction, and a forward pass from images (B, 3, H, W), standardised
as the network sees them, to (B, N, values), one row a patch in reading order, or to tokens (B, N) int64 below `values`.
No gradient goes back. `target_loss` compares either kind with a prediction.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.hog import hog_targets
from sslcourse.errors import InputError, unknown
from sslcourse.losses.masked import beit_loss, maskfeat_loss, normalize_patches
from sslcourse.nn.patches import patchify, unpatchify
from sslcourse.train.distributed import gather

Kind = Literal["pixels", "normalized", "hog", "pca", "codebook", "teacher", "pseudo_label"]
KINDS = ("pixels", "normalized", "hog", "pca", "codebook", "teacher", "pseudo_label")
TAUGHT = ("teacher", "pseudo_label")  # kinds that need a trained network


def patch_target(kind: Kind, p: int, *, vocabulary: int = 512, teacher: str = "") -> "Target":
    """A target for patches of p x p pixels.

    Args:
        kind: "pixels"; "normalized", each patch standardised (MAE); "hog" (MaskFeat); "pca", 96 principal components
            (MAE, table 1d); "codebook", the nearest of `vocabulary` patches, which needs no other training; "teacher",
            what a trained network says: the tokens of a dVAE, or the features of any other; "pseudo_label", the class
            that a network trained with labels gives each patch.
        teacher: run folder of that network.

    Raises:
        InputError: an unknown kind, a vocabulary of nothing, or a teacher where none or a missing one is named.
    """
    if kind not in KINDS:
        raise unknown("target", kind, KINDS)
    if (kind in TAUGHT) != bool(teacher):
        raise InputError(
            "target='teacher' or 'pseudo_label' and a run folder as teacher belong together; got "
            f"{kind!r} and {teacher!r}."
        )
    if vocabulary < 1:
        raise InputError(f"a codebook has a vocabulary of 1 token or more; got {vocabulary}.")
    if kind in TAUGHT:
        from sslcourse.train.checkpoint import load_model

        trained: Any = load_model(teacher)
        return PseudoLabelTarget(trained, p) if kind == "pseudo_label" else TeacherTarget(trained.backbone, p)
    if kind == "pca":
        return PrincipalComponents(3 * p * p)
    if kind == "codebook":
        return PatchCodebook(3 * p * p, vocabulary)
    return HogTarget(p) if kind == "hog" else PixelTarget(p, kind == "normalized")


def target_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error, or cross-entropy where the target is tokens, over hidden patches; scalar."""
    return maskfeat_loss(pred, target, mask) if target.is_floating_point() else beit_loss(pred, target, mask)


class Target(nn.Module):
    """See the module's text."""

    values: int


class PixelTarget(Target):
    """Pixels of patches, as they are or every patch standardised by itself."""

    def __init__(self, p: int, normalized: bool = False) -> None:
        super().__init__()
        self.p, self.normalized, self.values = p, normalized, 3 * p * p

    def forward(self, x: Tensor) -> Tensor:
        patches = patchify(x, self.p)
        return normalize_patches(patches) if self.normalized else patches


class HogTarget(Target):
    """MaskFeat's HOG: 9 orientations in 2 x 2 cells a patch and channel, 108 numbers (section 3.2)."""

    def __init__(self, p: int) -> None:
        super().__init__()
        if p % 2:
            raise InputError(f"HOG targets cut a patch into 2 x 2 cells; a patch of {p} px has no half.")
        self.p, self.values = p, 3 * 9 * 4

    def forward(self, x: Tensor) -> Tensor:
        return hog_targets(x, self.p, cell=self.p // 2)


class _FirstBatch(Target):
    """A target that is fitted to the patches of the first batch that it sees in training, and then stays.

    `table` is 0 until then.
    """

    table: Tensor

    def __init__(self, rows: int, patch_values: int) -> None:
        super().__init__()
        self.p = round((patch_values / 3) ** 0.5)
        self.register_buffer("table", torch.zeros(rows, patch_values))
        self.register_buffer("center", torch.zeros(patch_values))
        self.center: Tensor

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        patches = patchify(x, self.p).float()
        if self.training and not self.table.any():
            self.fit(gather(patches).flatten(0, 1))
        return self.read(patches)

    def fit(self, patches: Tensor) -> None:
        """Set the table from (M, patch_values)."""
        raise NotImplementedError

    def read(self, patches: Tensor) -> Tensor:
        """(B, N, patch_values) to what is predicted."""
        raise NotImplementedError


class PrincipalComponents(_FirstBatch):
    """Patches as their first principal components (MAE, He et al. 2021, table 1d), strongest first.

    Attributes:
        table: (values, patch_values), the components.
        center: (patch_values,), the mean patch.
    """

    def __init__(self, patch_values: int, n: int = 96) -> None:
        self.values = min(n, patch_values)
        super().__init__(self.values, patch_values)

    def fit(self, patches: Tensor) -> None:
        self.center.copy_(patches.mean(dim=0))
        moments = (patches - self.center).T @ (patches - self.center)
        self.table.copy_(torch.linalg.eigh(moments).eigenvectors.T.flip(0)[: self.values])  # eigenvalues ascend

    def read(self, patches: Tensor) -> Tensor:
        return (patches - self.center) @ self.table.T


class PatchCodebook(_FirstBatch):
    """The nearest of `vocabulary` patches, a tokenizer that costs nothing: k-means on the first batch.

    Pixels in place of a dVAE's features: what BEiT (Bao et al. 2021, section 2.1) learns its tokenizer to avoid.
    """

    def __init__(self, patch_values: int, vocabulary: int) -> None:
        self.values = vocabulary
        super().__init__(vocabulary, patch_values)

    def fit(self, patches: Tensor, rounds: int = 10) -> None:
        start = torch.linspace(0, len(patches) - 1, self.values).long()  # where patches are few, some stand twice
        codes = patches[start.to(patches.device)]
        for _ in range(rounds):
            nearest = torch.cdist(patches, codes).argmin(dim=1)
            sums = torch.zeros_like(codes).index_add_(0, nearest, patches)
            counts = torch.bincount(nearest, minlength=self.values)[:, None]
            codes = torch.where(counts > 0, sums / counts.clamp(min=1), codes)
        self.table.copy_(codes)

    def read(self, patches: Tensor) -> Tensor:
        return torch.cdist(patches.flatten(0, 1), self.table).argmin(dim=1).view(patches.shape[:2])


class TeacherTarget(Target):
    """What a frozen network says of each patch of the whole image: tokens (`tokenize`), or standardised features.

    The teacher sees the view at the size at which its patches are ours, as BEiT's tokenizer does (112 px for 8 px
    tokens and 16 px patches). Features are L2-normalised (MaskFeat, Wei et al. 2021, table 2).
    """

    def __init__(self, teacher: Any, p: int) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        if not hasattr(teacher, "tokenize") and not hasattr(teacher, "forward_map"):
            raise InputError(f"{type(teacher).__name__} has neither tokens nor a feature map to be predicted.")
        self.tokens, self.p = hasattr(teacher, "tokenize"), p
        self.values: int = teacher.vocabulary if self.tokens else teacher.num_features

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if self.tokens:
            return self.teacher.eval().tokenize(self.resized(x)).flatten(1)
        return F.normalize(self.features(x), dim=-1)

    def features(self, x: Tensor) -> Tensor:
        """What the teacher says of each patch, as it says it, (B, N, num_features)."""
        return self.teacher.eval().forward_map(self.resized(x)).flatten(2).transpose(1, 2)

    def resized(self, x: Tensor) -> Tensor:
        """The images at the size at which the teacher's patches are ours."""
        if (stride := self.teacher.stride) == self.p:
            return x
        size = (x.shape[2] // self.p * stride, x.shape[3] // self.p * stride)
        return F.interpolate(x, size, mode="bicubic", antialias=True)


class PseudoLabelTarget(TeacherTarget):
    """The class that a network trained with labels gives each patch: `values` classes, (B, N) int64.

    MaskFeat's pseudo-labels (Wei et al. 2021, section 4 and table 2) come from token labelling, which applies the
    classifier of a trained network to its last map, place by place (Jiang et al. 2021, arXiv:2104.10858). So does this.
    Behind a mean over places, as in a convolutional network, the classifier's answer for an image is the mean of its
    answers for the places. That of a ViT's class token was never asked about a patch: it reads the patches after the
    same final norm, and they are the noisier labels.

    Attributes:
        classifier: (..., num_features) -> (..., values), frozen; of a distilled DeiT that of the class token.
    """

    def __init__(self, method: Any, p: int) -> None:
        head = getattr(method, "head", None)
        if not hasattr(method.config, "classes") or not isinstance(head, nn.Linear):
            raise InputError(
                f"target='pseudo_label' asks a classifier, and a run of {method.name} keeps none; "
                "name a run of deit or fixmatch as teacher."
            )
        super().__init__(method.backbone, p)
        self.classifier, self.values = head.requires_grad_(False), head.out_features

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).argmax(dim=-1)


def repaint(images: Tensor, pred: Tensor, mask: Tensor, p: int, *, normalized: bool = False) -> Tensor:
    """Images whose hidden patches are the predicted ones, the others as they are: (B, 3, H, W).

    Args:
        images: (B, 3, H, W).
        pred: (B, N, p*p*3), in the order of `patchify`.
        mask: (B, N) bool, True = hidden.
        p: side of a patch.
        normalized: `pred` are pixels of standardised patches. Mean and spread of a hidden patch were not predicted
            then, so the true ones are used, which flatters the picture.
    """
    patches = patchify(images, p)
    if normalized:
        pred = pred * (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=-1, keepdim=True)
    painted = torch.where(mask[..., None], pred.to(patches.dtype), patches)
    return unpatchify(painted, p, images.shape[2] // p, images.shape[3] // p)
