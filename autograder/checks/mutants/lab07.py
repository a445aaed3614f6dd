"""Known-wrong and other right answers of lab 7 (BEiT and MAE)."""

from autograder.checks.mutants import lab07_beit as beit
from autograder.checks.mutants import lab07_blocks as blocks
from autograder.checks.mutants import lab07_mae as mae
from autograder.checks.mutants import lab07_network as network

WRONG = [
    *mae.RANDOM_MASKING,
    *mae.DECODER_UNSHUFFLE,
    *mae.MAE_LOSS,
    *network.MINI_MAE,
    *blocks.BLOCKWISE_MASK,
    *beit.BEIT_LOSS,
    *beit.GUMBEL_DVAE_STEP,
]
RIGHT = [*mae.RIGHT, *network.RIGHT, *blocks.RIGHT, *beit.RIGHT]

# Automatic mutations that no check kills: they change nothing that is asked for, or too little to cost a point.
_GIVEN = "the constructor is given, and the checks pass every argument and every weight"
_INIT = "MiniMAE: def __init__(self, n: int, values: int, dim=64,"
_TRIES = "nine tries or fewer in place of ten, which 60 masks do not tell apart"
EQUIVALENT = {
    "random_masking: ids_shuffle = noise.argsort()": "of two axes, the last is 1",
    "random_masking: ids_restore = ids_shuffle.argsort()": "of two axes, the last is 1",
    f"{_INIT} depth=1, decoder_dim=48, decoder_depth=1, ratio=0.75):": _GIVEN,
    f"{_INIT} depth=2, decoder_dim=48, decoder_depth=1, ratio=1.75):": _GIVEN,
    "MiniMAE: self.cls = nn.Parameter(0.02 / torch.randn(1, 1, dim))": _GIVEN,
    "MiniMAE: self.cls = nn.Parameter(-0.98 * torch.randn(1, 1, dim))": _GIVEN,
    "MiniMAE: self.mask_token = nn.Parameter(-0.98 * torch.randn(1, 1, decoder_dim))": _GIVEN,
    "blockwise_mask: failures = 2": _TRIES,
    "blockwise_mask: while mask.sum() < n_mask and failures < 9:": _TRIES,
    "blockwise_mask: if not (1 <= rows < h and 0 <= columns < w):": "a block without columns hides nothing new",
}
