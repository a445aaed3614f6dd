"""The protocols by name.

Most need one vector an image, and its label: `FEATURES`. The others look at maps, train the network or bring images of
their own: `ENCODERS`, which take an `Encoder` and a `Task`. Modules are imported when their protocol runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sslcourse.errors import unknown
from sslcourse.evaluate.fewshot import few_labels
from sslcourse.evaluate.knn import knn_accuracy
from sslcourse.evaluate.linear import linear_probe
from sslcourse.evaluate.result import Result

if TYPE_CHECKING:
    from sslcourse.evaluate.encoder import Encoder
    from sslcourse.evaluate.tasks import Task

Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Protocol:
    """A line of the table.

    Attributes:
        about: what it asks of a representation.
        measure: what its number is, for axes.
        run: what `FEATURES` and `ENCODERS` of this module say.
        trains: whether the network itself is trained, so that it has to have weights.
        ranks: whether more is better, so that representations can be put in order by it.
    """

    about: str
    measure: str
    run: Callable[..., Result]
    trains: bool = False
    ranks: bool = True


def _later(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(f"sslcourse.evaluate.{module}"), name)(*args, **options)

    return call


# (train features, train labels, test features, test labels, **options) -> Result
FEATURES: dict[str, Protocol] = {
    "knn": Protocol("Do neighbours have the same class?", "accuracy", knn_accuracy),
    "linear": Protocol("Can a linear map read the class?", "accuracy", linear_probe),
    "few_1": Protocol("The linear probe with 1 % of the labels.", "accuracy", partial(few_labels, fraction=0.01)),
    "few_10": Protocol("The linear probe with 10 % of the labels.", "accuracy", partial(few_labels, fraction=0.1)),
    "clustering": Protocol(
        "Do k-means clusters match the classes?", "accuracy", _later("clustering", "kmeans_accuracy")
    ),
    "retrieval": Protocol("Does an image rank its class first?", "mAP", _later("retrieval", "retrieval_map")),
    "spread": Protocol(
        "Do features point into all directions?", "std", _later("diagnostics", "spread_of_features"), ranks=False
    ),
    "rankme": Protocol(
        "How many dimensions are in use?", "RankMe", _later("diagnostics", "rank_of_features"), ranks=False
    ),
    "uniformity": Protocol(
        "Do features fill the sphere evenly?",
        "uniformity, lower is more even",
        _later("diagnostics", "uniformity_of_features"),
        ranks=False,
    ),
    "pair_auc": Protocol("Are images of one class more similar?", "AUC of pairs", _later("diagnostics", "pair_auc")),
}


def _finetune(encoder: "Encoder", task: "Task", **options: Any) -> Result:
    train, test = task.resident
    view = {"size": encoder.size, "mean": encoder.mean, "std": encoder.std, "device": encoder.device}
    return _later("finetune", "finetune")(encoder.backbone, train, test, seed=task.seed, **view, **options)


def _partial(encoder: "Encoder", task: "Task", **options: Any) -> Result:
    return _finetune(encoder, task, **{"last_blocks": 1, **options})


def _copy(encoder: "Encoder", task: "Task", **options: Any) -> Result:
    return _later("copies", "copy_detection")(
        encoder, task.photos(), whiten_on=task.others(), seed=task.seed, **options
    )


def _attention(encoder: "Encoder", task: "Task", **options: Any) -> Result:
    return _later("attention", "attention_jaccard")(encoder, *task.objects, seed=task.seed, **options)


def _video(encoder: "Encoder", task: "Task", **options: Any) -> Result:
    return _later("video", "video_segmentation")(
        encoder, task.followed, **{"short_side": task.side, "seed": task.seed, **options}
    )


def _on(module: str, name: str, part: str) -> Callable[..., Result]:
    """A protocol that takes what `part` of the task holds."""

    def run(encoder: "Encoder", task: "Task", **options: Any) -> Result:
        return _later(module, name)(encoder, *getattr(task, part), seed=task.seed, **options)

    return run


# (encoder, task, **options) -> Result
ENCODERS: dict[str, Protocol] = {
    "finetune": Protocol("The network trained on the labels.", "accuracy", _finetune, trains=True),
    "partial": Protocol("Its last block trained on the labels.", "accuracy", _partial, trains=True),
    "copy": Protocol("Does an edited image find its original?", "mAP", _copy),
    "robustness": Protocol(
        "The linear probe on corrupted images.",
        "accuracy under corruption",
        _on("robustness", "corruption_robustness", "resident"),
    ),
    "shift": Protocol(
        "The linear probe on sketches of the embedded world.",
        "accuracy on sketches",
        _on("robustness", "domain_shift", "shifted"),
    ),
    "segmentation": Protocol(
        "Can a linear layer on the map name every pixel?", "mIoU", _on("dense", "segmentation_probe", "maps")
    ),
    "depth": Protocol("Can it tell near objects from far ones?", "R^2", _on("dense", "depth_probe", "depths")),
    "detection": Protocol(
        "Can a small detector on the map find objects?", "COCO AP", _on("detection", "detection_transfer", "boxes")
    ),
    "attention": Protocol("Does the class token of a ViT look at the object?", "Jaccard", _attention),
    "video": Protocol("Do similar places carry a mask through a clip?", "J&F", _video),
    "action": Protocol(
        "Can a linear map read what moves how?", "accuracy", _on("actions", "action_recognition", "clips")
    ),
    "open_set": Protocol("Is it less sure about motions it never saw?", "AUROC", _on("actions", "open_set", "clips")),
    "temporal": Protocol(
        "From which frame to which does something move?",
        "mAP at tIoU 0.5",
        _on("actions", "temporal_localisation", "untrimmed"),
    ),
    "zero_shot": Protocol(
        "Can it name motions it never saw by their attributes?",
        "accuracy",
        _on("actions", "zero_shot_actions", "clips"),
    ),
    "tubes": Protocol(
        "And where, in every frame?", "mAP at tube IoU 0.5", _on("actions", "tube_localisation", "clips")
    ),
    "alignment": Protocol(
        "How far apart are two views of one image?",
        "squared distance",
        _on("diagnostics", "alignment_of_views", "resident"),
        ranks=False,
    ),
    "cka": Protocol(
        "How much of it is only how the pixels look?",
        "CKA with raw pixels",
        _on("diagnostics", "cka_with_pixels", "resident"),
        ranks=False,
    ),
}
PROTOCOLS: dict[str, Protocol] = {**FEATURES, **ENCODERS}
DIAGNOSTICS = ("spread", "rankme", "uniformity", "alignment", "pair_auc", "cka")


def evaluate(
    features: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    protocols: Sequence[str],
    *,
    representation: str,
    options: Options | None = None,
) -> list[Result]:
    """One result for each protocol on features; `detail` says of which representation.

    Args:
        features: (N, D) of the training and (M, D) of the test images.
        labels: (N,) and (M,).
        protocols: keys of `FEATURES`.
        representation: what the features come from, for tables.
        options: keyword arguments of a protocol, by its name.

    Raises:
        InputError: an unknown protocol.
    """
    results = []
    for name in protocols:
        if name not in FEATURES:
            raise unknown("protocol on features", name, FEATURES)
        arguments = (options or {}).get(name, {})
        result = FEATURES[name].run(features[0], labels[0], features[1], labels[1], **arguments)
        results.append(_named(result, name, representation))
    return results


def evaluate_encoder(
    encoder: "Encoder",
    task: "Task",
    protocols: Sequence[str],
    *,
    representation: str,
    options: Options | None = None,
    cache: Path | None = None,
) -> list[Result]:
    """One result a protocol, of whichever kind. A network that a protocol cannot take (pixels cannot be fine-tuned, a
    convolutional network has no class token) has no result there.

    Args:
        encoder: the representation.
        task: the data.
        protocols: keys of `PROTOCOLS`.
        cache: folder in which features are kept between calls.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
    on_features = [name for name in protocols if name in FEATURES]
    results = []
    if on_features:
        from sslcourse.evaluate.cache import cached_features

        train, test = task.labelled
        features = cached_features(encoder, train, cache), cached_features(encoder, test, cache)
        labels = train.labels.to(features[0].device), test.labels.to(features[1].device)
        results += evaluate(features, labels, on_features, representation=representation, options=options)
    for name in protocols:
        if name in ENCODERS and suits(name, encoder.backbone):
            result = ENCODERS[name].run(encoder, task, **(options or {}).get(name, {}))
            results.append(_named(result, name, representation))
    return results


def suits(protocol: str, backbone: nn.Module) -> bool:
    """Whether a protocol can take this network."""
    if protocol == "attention":
        return hasattr(backbone, "get_last_attention") and getattr(backbone, "cls_token", None) is not None
    return not ENCODERS[protocol].trains or next(backbone.parameters(), None) is not None


def without_result(protocols: Sequence[str], results: Sequence[Result]) -> list[str]:
    """The protocols that no representation could be given to."""
    return [p for p in protocols if all(r.detail["protocol"] != p for r in results)]


def _named(result: Result, protocol: str, representation: str) -> Result:
    detail = {**result.detail, "representation": representation, "protocol": protocol}
    return replace(result, name=f"{protocol}, {representation}", detail=detail)
