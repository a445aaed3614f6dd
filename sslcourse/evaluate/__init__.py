"""Protocols that say what a frozen representation is worth: features in, a result with an interval out."""

from sslcourse.evaluate.baselines import pixel_features
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.knn import knn_accuracy, knn_classify
from sslcourse.evaluate.linear import LinearProbe, fit_linear, linear_probe
from sslcourse.evaluate.result import Result, bootstrap_ci, seed_interval, wilson_interval

__all__ = [
    "LinearProbe",
    "Result",
    "bootstrap_ci",
    "extract_features",
    "fit_linear",
    "knn_accuracy",
    "knn_classify",
    "linear_probe",
    "pixel_features",
    "seed_interval",
    "wilson_interval",
]
