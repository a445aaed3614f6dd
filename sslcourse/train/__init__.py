"""Training: `fit`, the one loop; `TrainConfig`, its settings; `load_model` and `read_log`, what a run leaves."""

from sslcourse.train.checkpoint import load_model
from sslcourse.train.config import TrainConfig, from_dict, to_dict
from sslcourse.train.log import read_log
from sslcourse.train.loop import fit
from sslcourse.train.monitor import CollapseWarning, alignment, feature_std, rankme, uniformity

__all__ = [
    "CollapseWarning",
    "TrainConfig",
    "alignment",
    "feature_std",
    "fit",
    "from_dict",
    "load_model",
    "rankme",
    "read_log",
    "to_dict",
    "uniformity",
]
