"""Protocols that say what a frozen representation is worth: features in, a result with an interval out."""

from sslcourse.evaluate.baselines import pixel_features
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.knn import knn_accuracy, knn_classify
from sslcourse.evaluate.linear import LinearProbe, fit_linear, linear_probe
from sslcourse.evaluate.result import Result, bootstrap_ci, seed_interval, wilson_interval
from sslcourse.evaluate.retrieval import (
    average_precision,
    mean_average_precision,
    micro_average_precision,
    precision_at,
    retrieval,
    retrieval_ap,
    revisited,
)

__all__ = [
    "LinearProbe",
    "Result",
    "average_precision",
    "bootstrap_ci",
    "extract_features",
    "fit_linear",
    "knn_accuracy",
    "knn_classify",
    "linear_probe",
    "mean_average_precision",
    "micro_average_precision",
    "pixel_features",
    "precision_at",
    "retrieval",
    "retrieval_ap",
    "revisited",
    "seed_interval",
    "wilson_interval",
]
