"""Protocols that say what a frozen representation is worth: features in, a result with an interval out."""

from sslcourse.evaluate.baselines import pixel_features
from sslcourse.evaluate.clustering import cluster_accuracy, clustering_scores, kmeans_accuracy
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.fewshot import few_labels, stratified_subset
from sslcourse.evaluate.knn import knn_accuracy, knn_classify
from sslcourse.evaluate.linear import LinearProbe, fit_linear, linear_probe, linear_probe_features
from sslcourse.evaluate.result import Result, bootstrap_ci, seed_interval, wilson_interval
from sslcourse.evaluate.retrieval import (
    average_precision,
    mean_average_precision,
    micro_average_precision,
    precision_at,
    retrieval_ap,
    retrieval_map,
    revisited,
)
from sslcourse.evaluate.robustness import effective_robustness, fit_logit_line, mce, relative_mce
from sslcourse.evaluate.segmentation import boundary_iou, mask_boundary, miou
from sslcourse.evaluate.video import davis_scores, knn_copy, propagate_labels
from sslcourse.evaluate.views import video_views_eval

__all__ = [
    "LinearProbe",
    "Result",
    "average_precision",
    "bootstrap_ci",
    "boundary_iou",
    "cluster_accuracy",
    "clustering_scores",
    "davis_scores",
    "effective_robustness",
    "extract_features",
    "few_labels",
    "fit_linear",
    "fit_logit_line",
    "kmeans_accuracy",
    "knn_accuracy",
    "knn_classify",
    "knn_copy",
    "linear_probe",
    "linear_probe_features",
    "mask_boundary",
    "mce",
    "mean_average_precision",
    "micro_average_precision",
    "miou",
    "pixel_features",
    "precision_at",
    "propagate_labels",
    "relative_mce",
    "retrieval_ap",
    "retrieval_map",
    "revisited",
    "seed_interval",
    "stratified_subset",
    "video_views_eval",
    "wilson_interval",
]
