"""Protocols that say what a frozen representation is worth: features in, a result with an interval out."""

from sslcourse.evaluate.knn import knn_accuracy, knn_classify
from sslcourse.evaluate.result import Result, bootstrap_ci, seed_interval, wilson_interval

__all__ = ["Result", "bootstrap_ci", "knn_accuracy", "knn_classify", "seed_interval", "wilson_interval"]
