"""Is CLIP more robust than its accuracy alone explains? Sketches, negatives and noise, on the logit axes.

python -m benchmarks.findings.clip_shift

All networks have the same backbone and know photographs only. Snapshots of a supervised training give the line of
expected accuracies under shift (Taori et al. 2020); "expected" is the line at a model's accuracy on photographs, and a
model minus that its effective robustness. CLIP answers by words, the self-supervised network (SimCLR) with a linear
probe. CLIP has had far more training than the two others, so only the distance to the line compares them.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.findings import clip_common as common
from benchmarks.findings import simclr_common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Images
from sslcourse.data.augment import center_view
from sslcourse.data.captioned import CLASSES, PAIRS
from sslcourse.data.rng import mix, step_generator
from sslcourse.evaluate import extract_features
from sslcourse.evaluate.captions import TEMPLATES
from sslcourse.evaluate.linear import fit_linear
from sslcourse.evaluate.robustness import fit_logit_line
from sslcourse.evaluate.zeroshot import zero_shot_weights
from sslcourse.nn.backbones import backbone

TRAIN, STEPS, BATCH, LR = 3000, 240, 32, 2e-3
SSL_STEPS = 100  # of two views of 64 images
SNAPSHOTS = 4


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {
        "classes": len(CLASSES),
        "trained here": "a supervised network and SimCLR",
        "train": TRAIN,
        "steps": STEPS,
        "batch_size": BATCH,
        "lr": LR,
        "ssl_steps": SSL_STEPS,
        "snapshots": SNAPSHOTS,
    }


def measure(seed: int) -> dict[str, float]:
    """Accuracy of shape on photographs and under each shift, and what the supervised line leads one to expect."""
    train = common.single("train", TRAIN, mix(seed, 1))
    tests = {name: common.single("test", common.TEST, seed, **knobs) for name, knobs in common.SHIFTS.items()}
    labels = tests["photo"].labels
    names = zero_shot_weights(common.model().text, PAIRS, TEMPLATES)
    words = {name: common.shape_accuracy(common.embed(test.images), labels, names) for name, test in tests.items()}
    steps = supervised(seed, train, tests)
    models = {"CLIP words": words, "SSL probe": self_supervised(seed, train, tests), "supervised": steps[-1]}
    found = {f"{name}: {model}": accuracy[name] for name in common.SHIFTS for model, accuracy in models.items()}
    for name in list(common.SHIFTS)[1:]:
        known, shifted = ([common.inside(s[of]) for s in steps] for of in ("photo", name))
        line = fit_logit_line(known, shifted)
        for model in ("CLIP words", "SSL probe"):
            found[f"{name}: {model}, expected"] = line(common.inside(models[model]["photo"])).item()
    return found


def supervised(seed: int, train: Images, tests: dict[str, Images]) -> list[dict[str, float]]:
    """Accuracies of a network trained with labels, at `SNAPSHOTS` equally spaced steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 2))
        encoder = backbone("convnet", common.SIZE)
        width: Any = encoder.num_features
        model = nn.Sequential(encoder, nn.Linear(width, len(CLASSES)))
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    found = []
    for step in range(1, STEPS + 1):
        rows = torch.randint(len(train), (BATCH,), generator=step_generator(mix(seed, 3), step))
        loss = F.cross_entropy(model.train()(center_view(train.images[rows], common.SIZE)), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, STEPS // SNAPSHOTS) == 0:
            found.append(
                {name: common.accuracy(_logits(model.eval(), test), test.labels) for name, test in tests.items()}
            )
    return found


def self_supervised(seed: int, train: Images, tests: dict[str, Images]) -> dict[str, float]:
    """Accuracies of a linear probe on SimCLR's frozen features."""
    settings = simclr_common.config(seed)
    settings = replace(settings, train=replace(settings.train, steps=SSL_STEPS))
    model = simclr_common.trained(settings, train)
    probe = fit_linear(extract_features(model.backbone, train), train.labels, n_cls=len(CLASSES), sweep=(0.01,))
    return {
        name: common.accuracy(probe(extract_features(model.backbone, test)), test.labels)
        for name, test in tests.items()
    }


@torch.no_grad()
def _logits(model: nn.Module, test: Images) -> Tensor:
    return torch.cat([model(center_view(x, common.SIZE)) for x in test.images.split(250)])


if __name__ == "__main__":
    question = "Does CLIP keep more under shift than a supervised network of its accuracy would?"
    run(Finding("clip_shift", question, "accuracy, 10 shapes", "photo: CLIP words", setting()), measure)
