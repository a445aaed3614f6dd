"""Which part stops collapse? SimSiam with and without its stop-gradient and its predictor (figure 2 and table 1).

python -m benchmarks.findings.simsiam_collapse

Also writes curves/simsiam_collapse.json: loss, spread and effective rank of the projections over the training.
"""

import json
import warnings
from typing import Any

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import FOLDER, Finding, run
from benchmarks.findings.simclr_common import knn
from sslcourse.train.monitor import CollapseWarning

ARMS: dict[str, dict[str, Any]] = {
    "SimSiam": {},
    "no stop-gradient": {"stop_gradient": False},
    "no predictor": {"predictor": False},
}
WIDTHS = {"hidden": 128, "dim": 128, "bottleneck": 32}
CURVES = {"step": "step", "loss": "loss", "spread": "feature_std", "rank": "rankme"}  # name here: name in the log
recorded: list[dict[str, dict[str, list[float]]]] = []  # of every seed measured: arm -> name -> one value a point


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting(**WIDTHS)


def network(seed: int, **changes: Any) -> Any:
    """An untrained SimSiam with the settings of an arm."""
    return common.build("simsiam", common.config("simsiam", seed, **WIDTHS, **changes), common.small_convnet)


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of the backbone, spread and rank of the projections at the end, for one seed."""
    data = common.images(seed)
    found, curves = {}, {}
    for arm, changes in ARMS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # two arms are to collapse
            model, log = common.trained(network(seed, **changes), data[0])
        found[f"{arm}, kNN"] = knn(model.backbone, data)
        found[f"{arm}, spread"] = log[-1]["feature_std"]
        found[f"{arm}, rank"] = min(1.0, log[-1]["rankme"] / min(shared.BATCH, WIDTHS["dim"]))
        curves[arm] = {name: [round(line[key], 4) for line in log] for name, key in CURVES.items()}
    recorded.append(curves)
    untrained = network(seed)
    return found | {"untrained, kNN": knn(untrained.backbone, data)}


if __name__ == "__main__":
    question = "Which part keeps SimSiam from collapse: the stop-gradient, the predictor, or both?"
    metric = "kNN accuracy (k = 20); spread of the projections, 1 for uniform directions; effective rank / largest"
    found = run(Finding("simsiam_collapse", question, metric, "SimSiam, kNN", setting()), measure)
    path = FOLDER / "curves" / f"{found.name}.json"
    path.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")
    print("wrote", path)
