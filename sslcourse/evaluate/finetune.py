"""Fine-tuning: the whole network, or its last blocks, trained on labels from the pre-trained weights.

Early layers are general and late ones belong to the pretext task, so early layers move less: layer l of L (0 is the
patch embedding, L the head) learns at lr * decay^(L - l) (BEiT, Bao et al. 2021, appendix H; MAE, He et al. 2021,
appendix A.2). The backbone that is passed in stays as it is; a copy is trained.
"""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import MEAN, STD, Augment, Triple
from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.result import Result, accuracy
from sslcourse.train.optim import warmup_cosine

NO_DECAY = ("pos_embed", "cls_token", "reg_token", "mask_token")
_BLOCK = re.compile(r"^(?:blocks|stages)\.(\d+)\.|^layer(\d+)\.")
_STEM = re.compile(r"^(?:cls_token|pos_embed|reg_token|mask_token|patch_embed\.|conv1\.|bn1\.)")


def linear_head(dim: int, n_classes: int, *, batch_norm: bool = True, std: float = 0.01) -> nn.Sequential:
    """MAE's classifier on features: batch norm without affine, then a linear layer ((B, dim) -> (B, n_classes)).

    Batch norm takes the scale out of features, so one learning rate suits all methods (MAE, appendix A.1). It belongs
    to the probe: in eval mode it uses statistics of training features.

    Args:
        std: of the initial weights; 0.01 for linear probing, 2e-5 for fine-tuning, which starts from almost nothing.
    """
    linear = nn.Linear(dim, n_classes)
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6) if batch_norm else nn.Identity(), linear)


def block_of(name: str) -> int | None:
    """Number of the block that a parameter belongs to: -1 for what is before the blocks, None for what is after.

    >>> block_of("blocks.3.attn.qkv.weight"), block_of("patch_embed.proj.bias"), block_of("norm.weight")
    (3, -1, None)
    """
    if _STEM.match(name):
        return -1
    found = _BLOCK.match(name)
    if found is None:
        return None
    # Stages of a ResNet are called layer1 .. layer4.
    return int(found[1]) if found[1] else int(found[2]) - 1


def layer_decay_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    decay: float,
    weight_decay: float = 0.05,
    no_decay: Sequence[str] = NO_DECAY,
) -> list[dict[str, Any]]:
    """Parameter groups with `lr_scale` = decay^(L - l) and no weight decay on biases, norms and tokens.

    Args:
        named_parameters: of a backbone with its head; those that need no gradient are left out. Blocks are called
            `blocks.I`, `stages.I` or `layerI`; what stands before them is layer 0, what comes after them (norm, head)
            is layer L = number of blocks + 1.
        decay: in (0, 1]; 1 gives every layer the same rate.
        weight_decay: of matrices.
        no_decay: names of tensors of two dimensions or more that get none.

    Returns:
        One dictionary a layer and kind, in order of first appearance: "params", "names", "lr_scale", "weight_decay".
        Multiply the scheduled learning rate by "lr_scale" at every step.
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer_decay_groups takes a decay in (0, 1]; got {decay}.")
    named = [(name, p) for name, p in named_parameters if p.requires_grad]
    blocks = {name: block_of(name) for name, _ in named}
    last = 2 + max((b for b in blocks.values() if b is not None), default=-1)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, p in named:
        block = blocks[name]
        layer = last if block is None else block + 1
        decays = p.ndim > 1 and name not in no_decay
        empty = {"params": [], "names": [], "lr_scale": decay ** (last - layer), "weight_decay": weight_decay * decays}
        group = groups.setdefault((layer, decays), empty)
        group["params"].append(p)
        group["names"].append(name)
    return list(groups.values())


def train_last_blocks(backbone: nn.Module, n: int | None) -> None:
    """Let only the last `n` blocks, and what comes after them, require gradients; None is all of it, 0 no block.

    Partial fine-tuning (Yosinski et al. 2014; MAE, section 4.3) tells a strong but not linear representation from a
    weak one.

    Raises:
        InputError: a backbone with fewer than `n` blocks.
    """
    numbers = [block for name, _ in backbone.named_parameters() if (block := block_of(name)) is not None]
    count = max(numbers, default=-1) + 1
    if n is not None and not 0 <= n <= count:
        raise InputError(f"{type(backbone).__name__} has {count} blocks; cannot fine-tune the last {n}.")
    for name, p in backbone.named_parameters():
        block = block_of(name)
        p.requires_grad_(n is None or block is None or block >= count - n)


def finetune(
    backbone: nn.Module,
    train: Any,
    test: Any,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    layer_decay: float = 0.75,
    last_blocks: int | None = None,
    warmup: float = 0.1,
    size: int | None = None,
    mean: Triple = MEAN,
    std: Triple = STD,
    augment: Augment | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Result:
    """Top-1 accuracy of a copy of `backbone` fine-tuned on `train`, with its 95 % interval over the test images.

    Args:
        backbone: (B, 3, size, size) -> (B, num_features); left as it is.
        train, test: `Images` with labels 0 or more. For few labels pass `train.subset(stratified_subset(...))`.
        epochs, batch_size, lr, weight_decay: of AdamW; the last epoch is evaluated, none is chosen.
        layer_decay: as in `layer_decay_groups`.
        last_blocks: train only that many blocks and the head; None trains everything.
        warmup: part of the steps in which the learning rate rises; then it falls along a cosine.
        size, mean, std: the view, as in `extract_features`.
        augment: the training view; a random crop of at least 30 % of the area with a flip by default.
        seed: of the head, the batches and the views.
    """
    _check(train, test, epochs, batch_size, lr)
    device = device or next(backbone.parameters()).device
    n_classes = 1 + int(max(train.labels.max(), test.labels.max()))
    size = size or min(train.images.shape[-2:])
    augment = augment or Augment(size, scale=(0.3, 1.0), jitter_p=0.0, gray=0.0, blur=0.0, mean=mean, std=std)
    with torch.random.fork_rng(devices=[]):  # initialisers and dropout draw from the global generator
        torch.manual_seed(mix(seed, 1))
        head = linear_head(int(backbone.num_features), n_classes, batch_norm=False, std=2e-5)  # type: ignore[arg-type]
        model = Classifier(deepcopy(backbone), head).to(device)
        train_last_blocks(model.backbone, last_blocks)
        _train(model, train, augment, epochs, batch_size, lr, weight_decay, layer_decay, warmup, device, seed)
    logits = extract_features(model, test, size=size, device=device, mean=mean, std=std)
    detail = {
        "protocol": "finetune",
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "last_blocks": last_blocks,
        "n_train": len(train),
        "seed": seed,
    }
    return accuracy("finetune", logits, test.labels, detail)


class Classifier(nn.Module):
    """A backbone and a head: (B, 3, H, W) -> (B, n_classes)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def _train(
    model: Classifier,
    data: Any,
    augment: Augment,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    layer_decay: float,
    warmup: float,
    device: torch.device | str,
    seed: int,
) -> None:
    named = [*model.backbone.named_parameters(), *(("head." + name, p) for name, p in model.head.named_parameters())]
    groups = layer_decay_groups(named, layer_decay, weight_decay)
    optimizer = torch.optim.AdamW([{k: v for k, v in g.items() if k != "names"} for g in groups], lr=lr)
    batch_size = min(batch_size, len(data))
    total = epochs * (len(data) // batch_size)
    step = 0
    for epoch in range(epochs):
        _train_mode(model)
        for images, labels, _ in data.batches(batch_size, seed=seed, epoch=epoch, device=device):
            rate = warmup_cosine(step, total, int(warmup * total), lr)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            view = augment(images, generator=step_generator(seed, step))
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(view), labels).backward()
            optimizer.step()
            step += 1


def _train_mode(model: nn.Module) -> None:
    """Training mode for what is trained; a frozen batch norm keeps its statistics."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _check(train: Any, test: Any, epochs: int, batch_size: int, lr: float) -> None:
    for what, data in (("training", train), ("test", test)):
        if len(data) == 0 or int(data.labels.min()) < 0:
            raise InputError(f"Fine-tuning needs {what} images, each with a label of 0 or more.")
    if epochs < 1 or batch_size < 1 or lr <= 0:
        raise InputError(
            f"Fine-tuning needs epochs and batch_size of 1 or more and lr > 0; got {epochs}, {batch_size}, {lr}."
        )
