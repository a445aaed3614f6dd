"""Known-wrong and other right answers of lab 6 (ViT and DINO)."""

from autograder.checks.mutants import lab06_dino as dino
from autograder.checks.mutants import lab06_vit as vit

WRONG = [
    *vit.PATCHIFY,
    *vit.UNPATCHIFY,
    *vit.INTERPOLATE_POS,
    *vit.ATTENTION,
    *dino.DINO_LOSS,
    *dino.UPDATE_CENTER,
    *dino.MULTICROP_FORWARD,
    *dino.ATTN_TO_MASK,
]
RIGHT = [*vit.RIGHT, *dino.RIGHT]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT = {
    "interpolate_pos: n = math.isqrt(pos.shape[1] + 1)": "n * n + 2 is less than (n + 1) squared",
    "interpolate_pos: patches = grid.permute(2, 0, 3, 1).reshape(1, h * w, -1)": "there is one grid",
    "attention: logits = q @ k.transpose(+2, -1) / math.sqrt(q.shape[-1])": "of four axes, 2 is -2",
    "dino_loss: log_p = [F.log_softmax(s / ts, dim=+1) for s in student]": "of two axes, 1 is -1",
    "attn_to_mask: kept = torch.zeros_like(share.detach(), dtype=torch.bool).scatter(-1, order, before < mass)": (
        "zeros have no gradient"
    ),
}
