"""What masked methods predict in place of pixels, and how a prediction becomes an image again."""

import torch
from torch import Tensor, nn

from sslcourse.nn.patches import patchify, unpatchify
from sslcourse.train.distributed import gather


class PrincipalComponents(nn.Module):
    """Patches as their first principal components (MAE, He et al. 2021, table 1d), those of the first batch it sees.

    Args:
        values: of a patch, p*p*3.
        n: components that are kept, at most `values`.

    Attributes:
        components: (n, values), 0 until a batch has been seen in training.
        center: (values,), the mean patch.

    Shape: (B, N, values) -> (B, N, n). No gradient goes back.
    """

    components: Tensor
    center: Tensor

    def __init__(self, values: int, n: int = 96) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros(min(n, values), values))
        self.register_buffer("center", torch.zeros(values))

    @torch.no_grad()
    def forward(self, patches: Tensor) -> Tensor:
        if self.training and not self.components.any():
            flat = gather(patches).flatten(0, 1).float()
            self.center.copy_(flat.mean(dim=0))
            values = torch.linalg.eigh((flat - self.center).T @ (flat - self.center))  # eigenvalues ascend
            self.components.copy_(values.eigenvectors.T.flip(0)[: len(self.components)])
        return (patches.float() - self.center) @ self.components.T


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
