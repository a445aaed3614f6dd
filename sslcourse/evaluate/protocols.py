"""The protocols by name, run on the features of several representations of the same images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from sslcourse.errors import unknown
from sslcourse.evaluate.knn import knn_accuracy
from sslcourse.evaluate.linear import linear_probe
from sslcourse.evaluate.result import Result

PROTOCOLS: dict[str, Callable[..., Result]] = {"knn": knn_accuracy, "linear": linear_probe}


def evaluate(
    features: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    protocols: Sequence[str],
    *,
    representation: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Result]:
    """One result a protocol; `detail` says of which representation.

    Args:
        features: (N, D) of the training and (M, D) of the test images.
        labels: (N,) and (M,).
        protocols: keys of `PROTOCOLS`.
        representation: what the features come from, for tables.
        options: keyword arguments of a protocol, by its name.

    Raises:
        InputError: an unknown protocol.
    """
    results = []
    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
        arguments = (options or {}).get(name, {})
        result = PROTOCOLS[name](features[0], labels[0], features[1], labels[1], **arguments)
        detail = {"representation": representation, **result.detail}
        results.append(replace(result, name=f"{name}, {representation}", detail=detail))
    return results
