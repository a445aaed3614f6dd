"""Does a larger batch help, and does SigLIP need it less than CLIP? The same pairs seen, two losses, three batches.

python -m benchmarks.findings.clip_batch

The image tower is locked (Zhai et al. 2022, "LiT"): features of the shipped CLIP, embedded once, as in SigLIP's own
study of batch sizes (Zhai et al. 2023, section 4.1). What is trained is a linear map of them and a text tower that is a
bag of words, so that a run takes seconds. Within a seed all runs see the same pairs and start from the same weights;
the learning rate grows with the root of the batch, and where it starts was chosen for each loss on seeds that are not
recorded.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Images
from sslcourse.data.captioned import captioned
from sslcourse.data.rng import mix, step_generator
from sslcourse.evaluate.zeroshot import clip_retrieval_recall
from sslcourse.losses.clip import clamp_log_scale, clip_loss, siglip_loss
from sslcourse.train.checkpoint import load_model
from sslcourse.train.optim import warmup_cosine
from sslcourse.zoo.weights import shipped

TRAIN, SEEN, DIM, WIDTH = 3000, 32_000, 64, 128
BATCHES = (8, 32, 128)
LR = {"CLIP": 2e-3, "SigLIP": 2e-3}  # at a batch of 32
AMONG = 500  # captions that an image chooses from
LIVE = 128  # the batch of the run that chapter 10 makes


@dataclass(frozen=True)
class Pairs:
    """Locked features of scenes (N, F), standardised, and ids of their captions: (N, 5, L), or (N, L) for the test."""

    train: Tensor
    train_ids: Tensor
    test: Tensor
    test_ids: Tensor
    vocabulary: int


class Towers(nn.Module):
    """A linear map of image features, and a bag of words with one hidden layer; scale and bias are learned."""

    def __init__(self, features: int, vocabulary: int, log_scale: float, bias: float) -> None:
        super().__init__()
        self.image = nn.Linear(features, DIM, bias=False)
        self.bag = nn.EmbeddingBag(vocabulary, WIDTH, padding_idx=0)
        self.text = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, DIM))
        self.log_scale, self.bias = nn.Parameter(torch.tensor(log_scale)), nn.Parameter(torch.tensor(bias))

    def forward(self, features: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) and (B, L) -> two times (B, DIM)."""
        return self.image(features), self.text(self.bag(ids))


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {
        "trained here": "a linear map of locked features, and a bag of words",
        "train": TRAIN,
        "pairs seen": SEEN,
        "dim": DIM,
        "lr": LR,
        "among": AMONG,
    }


def pairs(seed: int) -> Pairs:
    """Scenes of a seed as the locked tower sees them."""
    model: Any = load_model(shipped(common.MODEL)).eval()
    train = captioned("train", TRAIN, common.SIZE, mix(seed, 1))
    test = captioned("test", common.TEST, common.SIZE, seed)
    x, z = (_features(model, part) for part in (train, test))
    centre, spread = x.mean(dim=0), x.std(dim=0) + 1e-6
    ids = model.vocabulary([text for five in train.captions for text in five], truncate=True)
    test_ids = model.vocabulary([five[0] for five in test.captions], truncate=True)
    size = model.config.vocab_size
    return Pairs((x - centre) / spread, ids.view(len(train), -1, ids.shape[1]), (z - centre) / spread, test_ids, size)


def trained(loss: str, batch: int, seed: int, data: Pairs) -> tuple[Towers, list[float]]:
    """Two towers after `SEEN` pairs, and the loss of every step; pairs and initial weights depend on the seed only."""
    sigmoid = loss == "SigLIP"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 2))
        start = math.log(10) if sigmoid else math.log(1 / 0.07)
        model = Towers(data.train.shape[1], data.vocabulary, start, -10.0)
    optimizer = torch.optim.AdamW(model.parameters(), LR[loss], betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    g, steps, curve = step_generator(mix(seed, 3), 0), SEEN // batch, []
    rows = torch.randint(len(data.train), (steps, batch), generator=g)
    which = torch.randint(data.train_ids.shape[1], (steps, batch), generator=g)
    for step in range(steps):
        rate = warmup_cosine(step, steps, steps // 10, LR[loss] * math.sqrt(batch / 32))
        for group in optimizer.param_groups:
            group["lr"] = rate
        img, txt = model(data.train[rows[step]], data.train_ids[rows[step], which[step]])
        scale, bias = model.log_scale, model.bias
        value = siglip_loss(img, txt, scale.exp(), bias) if sigmoid else clip_loss(img, txt, scale)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if not sigmoid:
            clamp_log_scale(model.log_scale)
        curve.append(value.item())
    return model.eval(), curve


@torch.no_grad()
def recall(model: Towers, data: Pairs) -> float:
    """Share of test scenes that find their caption among `AMONG`, recall@1."""
    groups = zip(*(z.split(AMONG) for z in model(data.test, data.test_ids)), strict=True)
    found = [clip_retrieval_recall(img, txt, [[i] for i in range(len(img))], 1) for img, txt in groups]
    return torch.stack(found).mean().item()


def measure(seed: int) -> dict[str, float]:
    """Recall of both losses at each batch size."""
    data = pairs(seed)
    return {f"{loss}, {n}": recall(trained(loss, n, seed, data)[0], data) for n in BATCHES for loss in LR}


@torch.no_grad()
def _features(model: Any, scenes: Images) -> Tensor:
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (model.config.augment.mean, model.config.augment.std))
    return torch.cat([model.backbone((x / 255 - mean) / std) for x in scenes.images.split(250)])


if __name__ == "__main__":
    question = "Does a larger batch help, and does SigLIP need it less than CLIP?"
    run(Finding("clip_batch", question, "recall@1 of 500 captions", "CLIP, 128", setting()), measure)
