"""Adapters for the evaluation protocols, which stand in all three groups."""

from collections.abc import Callable
from typing import Any

import torch
from loading import Adapter, Case
from torch import Tensor, nn

from sslcourse.evaluate import average_precision, knn_accuracy, mean_average_precision, precision_at
from sslcourse.evaluate.descriptors import multi_scale, pca_projection
from sslcourse.evaluate.finetune import layer_decay_groups, linear_head
from sslcourse.evaluate.segmentation import boundary_iou, mask_boundary, mask_iou
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.vit import ViT
from sslcourse.segment.mask_prompts import box_of, noisy_mask, points_in


def dino_knn_classifier(case: Case) -> dict[str, Any]:
    features = [case.inputs[name] for name in ("train_features", "train_labels", "test_features", "test_labels")]
    result = knn_accuracy(*features, k=case.hyper["k"], T=case.hyper["T"])
    # The official code gives per cent.
    return {"out.top1": _float64(100 * result.value), "out.top5": _float64(100 * result.detail["top5"])}


def dino_retrieval_map(case: Case) -> dict[str, Any]:
    ranks = case.inputs["ranks"].T  # official: (database, queries), each column a ranking
    scores = torch.zeros(ranks.shape).scatter_(1, ranks, -torch.arange(ranks.shape[1]).float().expand(ranks.shape))
    relevant, junk = (torch.zeros(ranks.shape, dtype=torch.bool) for _ in range(2))
    for row, ground in enumerate(case.hyper["gnd"]):
        relevant[row, ground["ok"]] = True
        junk[row, ground["junk"]] = True
    precision = precision_at(scores, relevant, case.hyper["kappas"], junk)
    # NaN marks a query without a relevant image here and there; where the official value is NaN any number passes.
    return {
        "out.map": mean_average_precision(scores, relevant, junk),
        "out.aps": average_precision(scores, relevant, junk).nan_to_num(0.0),
        "out.pr": precision.nanmean(dim=0),
        "out.prs": precision.nan_to_num(0.0),
    }


def dino_multiscale_and_pca(case: Case) -> dict[str, Any]:
    if "cov" in case.inputs:
        return _pca(case)
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    conv.weight, conv.bias = (nn.Parameter(case.state[f"0.{name}"]) for name in ("weight", "bias"))
    with torch.no_grad():
        ours = multi_scale(case.inputs["x"], lambda x: conv(x).relu().mean(dim=(2, 3)))

    def same_directions(official: Tensor) -> None:
        # The official code divides the batch by its one norm, which is meant (and right) for a batch of 1 only.
        torch.testing.assert_close(ours, nn.functional.normalize(official, dim=1), rtol=1e-4, atol=1e-5)

    return {"out.feat": ours if len(ours) == 1 else same_directions}


def _pca(case: Case) -> dict[str, Any]:
    projection = pca_projection(case.inputs["cov"], case.hyper["dim"], case.hyper["whit"])
    y = case.inputs["x"] @ projection.T  # the official `apply` centres only where a mean was set; here none was
    return {"out.y": _up_to_sign(y), "out.abs_dvt": projection.abs(), "out.gram": y @ y.T}


def _up_to_sign(ours: Tensor) -> Callable[[Tensor], None]:
    """The sign of an eigenvector is arbitrary, hence that of a column."""

    def compare(official: Tensor) -> None:
        sign = (ours * official).sum(dim=0).sign()
        torch.testing.assert_close(ours * sign, official, rtol=1e-9, atol=1e-9)

    return compare


def mae_interpolate_pos_embed(case: Case) -> dict[str, Any]:
    cases = enumerate(case.hyper["cases_old_new_extra"])
    return {
        f"i{i}/new": interpolate_pos(case.inputs[f"i{i}/old"], new, new, grid=(old, old)) for i, (old, new, _) in cases
    }


def mae_linprobe_head(case: Case) -> dict[str, Any]:
    head = linear_head(case.hyper["dim"], case.hyper["classes"])
    head.load_state_dict(case.state)
    head[0].reset_running_stats()  # the official state was recorded after the one update that the outputs go through
    with torch.no_grad():
        return {"train_out": head.train()(case.inputs["x"]), "eval_out": head.eval()(case.inputs["x"])}


def mae_layer_decay_groups(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    vit = ViT(16, 8, dim=16, depth=hyper["depth"], n_heads=2, n_classes=3, pool="avg")
    # The official model has its head before fc_norm; groups stand in the order in which parameters appear.
    named = sorted(vit.named_parameters(), key=lambda pair: pair[0].startswith("fc_norm"))
    groups = layer_decay_groups(named, hyper["layer_decay"], hyper["weight_decay"], hyper["no_weight_decay_list"])
    values = {
        name: torch.tensor([g[name] for g in groups], dtype=torch.float64) for name in ("lr_scale", "weight_decay")
    }
    listed = [{"lr_scale": g["lr_scale"], "weight_decay": g["weight_decay"], "params": g["names"]} for g in groups]
    return {**values, "extra.groups": listed}


def hq_train_prompts_metrics(case: Case) -> dict[str, Any]:
    grey = case.inputs["masks255"]
    masks = grey > 128  # the official masks are 0 .. 255
    pred = case.inputs["pred_logits"][:, 0] > 0
    points = [points_in(mask, case.inputs[f"perm{i}"], case.hyper["k"]) for i, mask in enumerate(masks)]
    ratio = case.hyper["dilation_ratio"]
    return {
        "boxes": box_of(masks),
        "sample_points": torch.stack(points),
        "noise_mask": 255 * noisy_mask(grey[:, None] / 255, case.inputs["noise_randn"]).float(),
        "iou": mask_iou(pred, masks),
        "boundary_iou": boundary_iou(pred, masks, ratio),
        "boundary_gt0": mask_boundary(masks[0], ratio),
    }


def _float64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


CONTRASTIVE: dict[str, Adapter] = {
    "dino_knn_classifier": dino_knn_classifier,
    "dino_retrieval_map": dino_retrieval_map,
    "dino_multiscale_and_pca": dino_multiscale_and_pca,
}
MASKED: dict[str, Adapter] = {
    "mae_interpolate_pos_embed": mae_interpolate_pos_embed,
    "mae_linprobe_head": mae_linprobe_head,
    "mae_layer_decay_groups": mae_layer_decay_groups,
}
CLIP_SAM: dict[str, Adapter] = {"hq_train_prompts_metrics": hq_train_prompts_metrics}
