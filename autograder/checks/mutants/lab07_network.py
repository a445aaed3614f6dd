"""Known-wrong and other right answers of lab 7, the MAE forward pass."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

MINI_MAE = edits(
    "MiniMAE",
    """
positions_after_masking: positions are added after masking: the visible tokens get the first places, not their own.
-         tokens = self.embed(patches) + self.pos[:, 1:]
-         visible, mask, ids_restore = random_masking(tokens, self.ratio, noise)
+         tokens = self.embed(patches)
+         visible, mask, ids_restore = random_masking(tokens, self.ratio, noise)
+         visible = visible + self.pos[:, 1 : 1 + visible.shape[1]]

no_positions: the encoder gets no positions: add `pos` to the embedded patches.
- self.embed(patches) + self.pos[:, 1:]
+ self.embed(patches)

positions_shifted: the positions are shifted by one: number 0 belongs to CLS.
- self.embed(patches) + self.pos[:, 1:]
+ self.embed(patches) + self.pos[:, :-1]

class_without_position: CLS has a position, too, number 0.
- (self.cls + self.pos[:, :1])
+ self.cls

no_decoder_positions: the decoder gets no positions: the mask tokens do not know where they are.
- self.decoder(full + self.decoder_pos)
+ self.decoder(full)

decoder_positions_before: decoder positions are added before the tokens are back in their places.
-         full = decoder_unshuffle(self.narrow(latent), self.mask_token, ids_restore)
-         pred = self.predict(self.decoder(full + self.decoder_pos))[:, 1:]
+         small = self.narrow(latent)
+         full = decoder_unshuffle(small + self.decoder_pos[:, : small.shape[1]], self.mask_token, ids_restore)
+         pred = self.predict(self.decoder(full))[:, 1:]

encoder_sees_all: the encoder gets all patches; hidden ones are left out before it.
-         latent = self.encoder(torch.cat([cls, visible], dim=1))
+         everything = self.encoder(torch.cat([cls, tokens], dim=1))
+         latent = torch.cat([everything[:, :1], random_masking(everything[:, 1:], self.ratio, noise)[0]], dim=1)

no_encoder: the encoder is never called.
- self.encoder(torch.cat([cls, visible], dim=1))
+ torch.cat([cls, visible], dim=1)

no_decoder: the decoder is never called.
- self.decoder(full + self.decoder_pos)
+ (full + self.decoder_pos)

class_last: CLS goes in front; you put it last.
- torch.cat([cls, visible], dim=1)
+ torch.cat([visible, cls], dim=1)

class_kept: CLS is still in the prediction: drop the first token.
-         pred = self.predict(self.decoder(full + self.decoder_pos))[:, 1:]
-         return mae_loss(pred, patches, mask), pred, mask
+         pred = self.predict(self.decoder(full + self.decoder_pos))
+         return mae_loss(pred[:, 1:], patches, mask), pred, mask

last_dropped: the last token is dropped; CLS is the first.
- (full + self.decoder_pos))[:, 1:]
+ (full + self.decoder_pos))[:, :-1]

loss_of_all: the loss is that of all patches; only hidden ones count.
- mae_loss(pred, patches, mask), pred
+ mae_loss(pred, patches, torch.ones_like(mask)), pred

loss_of_visible: the loss is that of the visible patches; True means hidden.
- mae_loss(pred, patches, mask), pred
+ mae_loss(pred, patches, ~mask), pred

normalised: the target is the raw patch here, without norm_pix.
- mae_loss(pred, patches, mask), pred
+ mae_loss(pred, patches, mask, True), pred

fixed_ratio: the ratio is always 0.75: use self.ratio.
- random_masking(tokens, self.ratio, noise)
+ random_masking(tokens, 0.75, noise)

own_noise: you roll your own dice; use the noise that you are given.
- random_masking(tokens, self.ratio, noise)
+ random_masking(tokens, self.ratio, torch.linspace(0, 1, noise.shape[1]).expand_as(noise))

mask_returned_flipped: the mask that you return is inverted.
- mask), pred, mask
+ mask), pred, ~mask

latent_detached: the encoder gets no gradient: no detach().
- self.narrow(latent)
+ self.narrow(latent.detach())
""",
)

RIGHT = [
    Right(
        "MiniMAE",
        "masked_before_embedding",
        """
class MiniMAE(nn.Module):
    def __init__(self, n: int, values: int, dim=64, depth=2, decoder_dim=48, decoder_depth=1, ratio=0.75):
        super().__init__()

        def blocks(width: int, count: int):
            how = {"layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
            layers = [nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", **how) for _ in range(count)]
            return nn.Sequential(*layers, nn.LayerNorm(width, eps=1e-6))

        self.ratio = ratio
        self.embed, self.encoder = nn.Linear(values, dim), blocks(dim, depth)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, dim))
        self.narrow, self.decoder = nn.Linear(dim, decoder_dim), blocks(decoder_dim, decoder_depth)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_dim))
        self.decoder_pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, decoder_dim))
        self.predict = nn.Linear(decoder_dim, values)

    def forward(self, patches, noise):
        b = patches.shape[0]
        raw, mask, ids_restore = random_masking(patches, self.ratio, noise)
        places, _, _ = random_masking(self.pos[:, 1:].expand(b, -1, -1), self.ratio, noise)
        x = torch.cat([self.cls.expand(b, -1, -1), self.embed(raw) + places], dim=1)
        x = torch.cat([x[:, :1] + self.pos[:, :1], x[:, 1:]], dim=1)
        small = self.narrow(self.encoder(x))
        full = decoder_unshuffle(x_vis=small, mask_token=self.mask_token, ids_restore=ids_restore)
        pred = self.predict(self.decoder(full + self.decoder_pos)[:, 1:])
        return mae_loss(pred=pred, patches=patches, mask=mask), pred, mask
""",
    ),
    Right(
        "MiniMAE",
        "without_the_earlier_functions",
        """
class MiniMAE(nn.Module):
    def __init__(self, n: int, values: int, dim=64, depth=2, decoder_dim=48, decoder_depth=1, ratio=0.75):
        super().__init__()

        def blocks(width: int, count: int):
            how = {"layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
            layers = [nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", **how) for _ in range(count)]
            return nn.Sequential(*layers, nn.LayerNorm(width, eps=1e-6))

        self.ratio = ratio
        self.embed, self.encoder = nn.Linear(values, dim), blocks(dim, depth)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, dim))
        self.narrow, self.decoder = nn.Linear(dim, decoder_dim), blocks(decoder_dim, decoder_depth)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_dim))
        self.decoder_pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, decoder_dim))
        self.predict = nn.Linear(decoder_dim, values)

    def forward(self, patches, noise):
        b, n, _ = patches.shape
        order = noise.argsort(1)
        keep = int(n * (1 - self.ratio))
        rows = torch.arange(b)[:, None]
        x = (self.embed(patches) + self.pos[:, 1:])[rows, order[:, :keep]]
        x = torch.cat([(self.cls + self.pos[:, 0]).repeat(b, 1, 1), x], 1)
        z = self.narrow(self.encoder(x))
        full = self.mask_token.repeat(b, n, 1)
        full = full.index_put((rows, order[:, :keep]), z[:, 1:])
        full = torch.cat([z[:, :1], full], 1) + self.decoder_pos
        pred = self.predict(self.decoder(full))[:, 1:]
        mask = torch.ones(b, n, dtype=torch.bool).index_put((rows, order[:, :keep]), torch.tensor(False))
        return (pred - patches)[mask].square().mean(), pred, mask
""",
    ),
]
