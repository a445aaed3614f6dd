"""A CLIP that has learned to read takes a word for the thing: the typographic attack, and two fixes.

python -m benchmarks.findings.clip_typographic

The shipped CLIP has never seen a label with a word. Here it goes on for a while with scenes that it has to name; half
of them carry their name, true as labels mostly are. Then labels lie (Goh et al. 2021, "Multimodal neurons in artificial
neural networks"). A label also hides pixels: what reading does is the difference between a lying word and a true one.

Both fixes learn from training scenes drawn with and without a label, and need no class: to project out what each word
adds to an embedding, or a linear map of features to the embedding of the same scene without the label (after
Materzynska et al. 2022, "Disentangling visual and written concepts in CLIP").
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Shapes
from sslcourse.data.captioned import CLASSES, PAIRS, pairs_of
from sslcourse.data.rng import mix, step_generator
from sslcourse.evaluate.captions import TEMPLATES
from sslcourse.evaluate.typographic import without_directions
from sslcourse.evaluate.zeroshot import prompt_logits, zero_shot_weights
from sslcourse.train.checkpoint import load_model
from sslcourse.zoo.weights import shipped

SCENES, STEPS, BATCH, LR, SCALE = 3000, 150, 64, 1e-3, 20.0
PAIRED, RIDGE = 1000, 1e-4  # scenes drawn twice for the fixes; penalty, a share of the mean squared feature
WORDS = {"no word": "none", "true word": "own", "lying word": "other"}
Embed = Callable[[Tensor], Tensor]


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {
        "classes": len(CLASSES),
        "trained here": "the shipped image tower, on scenes of which half carry their name",
        "scenes": SCENES,
        "steps": STEPS,
        "batch_size": BATCH,
        "lr": LR,
        "scale": SCALE,
        "paired": PAIRED,
    }


@torch.no_grad()
def measure(seed: int) -> dict[str, float]:
    """Zero-shot accuracy of shape on the same scenes without a word, with their name on a label, and with another."""
    before: Any = load_model(shipped(common.MODEL)).eval()
    names = zero_shot_weights(before.encode_text, PAIRS, TEMPLATES)
    after = reader(seed, names)
    directions, mapped = fixes(after, seed)
    tests = {name: common.single("test", common.TEST, seed, word=word) for name, word in WORDS.items()}
    x, y = {name: features(after, test.images) for name, test in tests.items()}, tests["no word"].labels
    z = {name: after.image_proj(h) for name, h in x.items()}
    out = F.normalize(without_directions(names.T, directions), dim=1).T
    found = {}
    for name, test in tests.items():
        img = before.image_proj(features(before, test.images))
        found[f"cannot read: {name}"] = common.shape_accuracy(img, y, names)
    found |= {f"reads: {name}": common.shape_accuracy(z[name], y, names) for name in tests}
    for name in tests:
        img = without_directions(z[name], directions)
        found[f"directions out: {name}"] = common.shape_accuracy(img, y, out)
    return found | {f"learned map: {name}": common.shape_accuracy(mapped(x[name]), y, names) for name in tests}


@torch.enable_grad()
def reader(seed: int, names: Tensor) -> Any:
    """The shipped CLIP after `STEPS` steps on scenes of one object; the class weights `names` (D, 100) stay."""
    model: Any = load_model(shipped(common.MODEL)).train()
    worlds = [world(mix(seed, 1), word) for word in ("own", "none")]
    numbers = [range(SCENES // 2), range(SCENES // 2, SCENES)]
    images = torch.cat([w.images_of(some).images for w, some in zip(worlds, numbers, strict=True)])
    labels = torch.from_numpy(pairs_of(worlds[0].parameters(range(SCENES)))[:, 0])
    optimizer = torch.optim.AdamW([*model.backbone.parameters(), *model.image_proj.parameters()], LR)
    for step in range(STEPS):
        rows = torch.randint(SCENES, (BATCH,), generator=step_generator(mix(seed, 2), step))
        img = model.encode_image(standardised(model, images[rows]))
        loss = F.cross_entropy(prompt_logits(img, names, SCALE), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def fixes(model: Any, seed: int) -> tuple[Tensor, Embed]:
    """(10, D) what each word adds to an embedding on average; and features -> embeddings as if there were no label."""
    labelled, plain = (world(mix(seed, 3), word) for word in ("random", "none"))
    word = torch.from_numpy(labelled.parameters(range(PAIRED)).word)
    x, x0 = (features(model, w.as_images(PAIRED).images) for w in (labelled, plain))
    target = model.image_proj(x0)
    added = model.image_proj(x) - target
    directions = torch.stack([added[word == k].mean(dim=0) for k in range(len(CLASSES))])
    centre, mean = x0.mean(dim=0), target.mean(dim=0)
    h = (torch.cat([x, x0]) - centre).double()
    gram = h.T @ h
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, h.T @ (target - mean).repeat(2, 1).double()).float()
    return directions, lambda features: (features - centre) @ weight + mean


def world(seed: int, word: str) -> Shapes:
    """Training scenes of one object, the same whatever the label in front of them says."""
    return Shapes("train", common.SIZE, seed, preset="captions", objects=(1, 1), word=word)


def standardised(model: Any, x: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float, as in the model's training."""
    view = model.config.augment
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (view.mean, view.std))
    return (x / 255 - mean) / std


def features(model: Any, images: Tensor) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, F) of the backbone."""
    return torch.cat([model.backbone(standardised(model, x)) for x in images.split(250)])


if __name__ == "__main__":
    question = "What does a lying word do to a CLIP that can read, and can it be undone?"
    run(Finding("clip_typographic", question, "zero-shot accuracy, 10 shapes", "reads: lying word", setting()), measure)
