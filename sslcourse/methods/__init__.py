"""One file per method. Each is an `nn.Module` that reads like the paper's algorithm box.

A method class has, besides `forward`:

- ``name: str``, its key in `sslcourse.catalogue`;
- ``Config``, a frozen dataclass with a sentence under each field and a ``train: TrainConfig`` among them;
- ``PRESETS: dict[str, Config]``;
- ``backbone``, an `nn.Module` with ``num_features``, (B, 3, H, W) float -> (B, num_features);
- ``views(images, generator) -> list[Tensor]``: augmented views of a (B, 3, H, W) uint8 batch; row i of each view
  (of each crop of it) comes from image i, and all random numbers from `generator`;
- ``forward(views) -> dict``: ``"loss"``, a scalar to minimise; ``"embedding"``, (B, D), and optionally ``"positive"``,
  (B, D), the second view's, for the collapse monitors;
- optionally ``uses: tuple[str, ...]``, which of "labels" (B,), "indices" (B,) and "progress" its `forward` takes by
  name: labels are for supervised and semi-supervised methods, indices (positions in the data) for those that remember
  each image, progress (the share of the steps that is done, in [0, 1)) for schedules of the loss;
- optionally ``prepare(data)``: what it takes from the training set before the first step, its captions for example;
- optionally ``epoch_data(data, epoch) -> data``: the images of an epoch, in place of all of them (DeepCluster);
- optionally ``after_backward(progress)``: what happens to the gradients before they are used;
- optionally ``after_step(step, total_steps)``: what follows an optimiser step (EMA, queue, centre).
"""

from typing import Any

import torch


def get(name: str) -> Any:
    """The class of the method called `name`; only its file is imported.

    Raises:
        InputError: no such method (with the nearest name).
    """
    from sslcourse import catalogue

    return catalogue.method_class(name)


def build(method: str | type, config: Any) -> Any:
    """An untrained method whose initial weights depend on ``config.train.seed`` only.

    Args:
        method: a name of the catalogue or a method class.
        config: an instance of the class's `Config`.
    """
    cls = get(method) if isinstance(method, str) else method
    with torch.random.fork_rng(devices=[]):  # initialisers draw from the global generator; it is put back afterwards
        torch.manual_seed(config.train.seed)
        return cls(config)
