"""MAE's forward pass on patches, with plain torch layers: what students write in lab 7.

`sslcourse.methods.mae.MAE` does the same from images, with a ViT, fixed positions and the settings of the paper.
"""

import torch
from torch import Tensor, nn

from sslcourse.losses.masked import mae_loss
from sslcourse.nn.patches import decoder_unshuffle, random_masking


class MiniMAE(nn.Module):
    """Encode the visible patches, put mask tokens in the empty places, predict every patch (He et al. 2021, section 3).

    Args:
        n: patches of an image.
        values: numbers in a patch.
        dim, depth: width and blocks of the encoder.
        decoder_dim, decoder_depth: of the decoder.
        ratio: part that is hidden; an attribute, which may be changed later.
    """

    def __init__(
        self,
        n: int,
        values: int,
        dim: int = 64,
        depth: int = 2,
        decoder_dim: int = 48,
        decoder_depth: int = 1,
        ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.embed = nn.Linear(values, dim)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, dim))
        self.encoder = _blocks(dim, depth)
        self.narrow = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_dim))
        self.decoder_pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, decoder_dim))
        self.decoder = _blocks(decoder_dim, decoder_depth)
        self.predict = nn.Linear(decoder_dim, values)

    def forward(self, patches: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, N, values) and noise (B, N) -> the loss, predictions (B, N, values), the mask (B, N) bool."""
        tokens = self.embed(patches) + self.pos[:, 1:]
        visible, mask, ids_restore = random_masking(tokens, self.ratio, noise)
        cls = (self.cls + self.pos[:, :1]).expand(len(patches), -1, -1)
        latent = self.encoder(torch.cat([cls, visible], dim=1))
        full = decoder_unshuffle(self.narrow(latent), self.mask_token, ids_restore)
        pred = self.predict(self.decoder(full + self.decoder_pos))[:, 1:]
        return mae_loss(pred, patches, mask), pred, mask


def _blocks(dim: int, depth: int) -> nn.Sequential:
    """Pre-norm transformer blocks of 4 heads and a last norm."""
    layers: list[nn.Module] = [
        nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    return nn.Sequential(*layers, nn.LayerNorm(dim, eps=1e-6))
