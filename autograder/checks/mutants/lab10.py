"""Known-wrong and other right answers of lab 10 (CLIP and SigLIP)."""

from autograder.checks.mutants import lab10_losses as losses
from autograder.checks.mutants import lab10_words as words

WRONG = [
    *losses.CLIP_LOSS,
    *losses.SIGLIP_LOSS,
    *losses.GATHER_NEGATIVES,
    *words.CLIP,
    *words.ZERO_SHOT_WEIGHTS,
    *words.PROMPT_LOGITS,
    *words.EFFECTIVE_ROBUSTNESS,
]
RIGHT = [*losses.RIGHT, *words.RIGHT]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT = {
    "clip_loss: img, txt = (F.normalize(img), F.normalize(txt, dim=1))": "dim=1 is what F.normalize does anyway",
    "clip_loss: img, txt = (F.normalize(img, dim=1), F.normalize(txt))": "dim=1 is what F.normalize does anyway",
    "clip_loss: pair = torch.arange(len(img.detach()))": "a length has no gradient",
    "siglip_loss: img, txt = (F.normalize(img), F.normalize(txt, dim=1))": "dim=1 is what F.normalize does anyway",
    "siglip_loss: img, txt = (F.normalize(img, dim=1), F.normalize(txt))": "dim=1 is what F.normalize does anyway",
    "siglip_loss: z = 2 * torch.eye(len(img)) - 1": "float32 times float64 is float64, and 1 is 1 in both",
    "siglip_loss: z = 2 * torch.eye(len(img.detach()), dtype=img.dtype) - 1": "a length has no gradient",
    "siglip_loss: return -F.logsigmoid(z * logits).sum() / len(img.detach())": "a length has no gradient",
    "CLIP: return self.visual(x.detach())": "towers and numbers are trained, not images",
    "CLIP: txt = F.normalize(self.encode_text(tokens))": "dim=1 is what F.normalize does anyway",
    "CLIP: txt = F.normalize(self.encode_text(tokens.detach()), dim=1)": "whole numbers have no gradient",
    "CLIP: return self.text(tokens.detach())": "whole numbers have no gradient",
    "CLIP: img = F.normalize(self.encode_image(x))": "dim=1 is what F.normalize does anyway",
    "CLIP: img = F.normalize(self.encode_image(x.detach()), dim=1)": "towers and numbers are trained, not images",
    "zero_shot_weights: prompts = F.normalize(encode(texts))": "dim=1 is what F.normalize does anyway",
    "zero_shot_weights: columns.append(F.normalize(prompts.sum(dim=0), dim=0))": "a sum is a longer mean",
    "prompt_logits: return scale * F.normalize(img) @ W": "dim=1 is what F.normalize does anyway",
    **{
        f"effective_robustness: m = {covariance}.sum() / (u - u.mean()).square().sum()": (
            "one of two centred factors is enough: the other's shift times a sum of 0"
        )
        for covariance in (
            "((u - u.mean()) * (v + v.mean()))",
            "((u - u.sum()) * (v - v.mean()))",
            "((u - u.mean()) * (v - v.sum()))",
            "((u + u.mean()) * (v - v.mean()))",
        )
    },
}
