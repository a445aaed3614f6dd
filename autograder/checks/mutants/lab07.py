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

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT: dict[str, str] = {}
