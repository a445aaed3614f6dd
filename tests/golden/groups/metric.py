"""Adapters for supervised and metric-learning losses: SupCon, hard negatives, pytorch-metric-learning."""

from typing import Any

import torch
import torch.nn.functional as F
from groups.precision import in_each_precision
from loading import Adapter, Case
from torch import Tensor

from sslcourse.losses import (
    MoCHiDraws,
    chopra_contrastive,
    hcl_reweighted,
    in_batch_similarities,
    lifted_generalized,
    lifted_structured,
    margin_pairs,
    mochi_mix,
    moco_logits,
    n_pair,
    nt_xent_pairs,
    pairwise_distance,
    supcon_out,
    triplet,
)


def supcon(case: Case) -> dict[str, Any]:
    tau, base = case.hyper["temperature"], case.hyper["base_temperature"]

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = supcon_out(
            inputs["features"],
            inputs.get("labels"),
            tau,
            mask=inputs.get("mask"),
            all_anchors=case.hyper["contrast_mode"] == "all",
            normalize=False,  # the official code leaves that to the network
        )
        return {"loss": tau / base * loss}  # the official factor keeps the gradient's size when tau changes

    return in_each_precision(case, outputs)


def hcl_robinson(case: Case) -> dict[str, Any]:
    hard = case.hyper["estimator"] == "hard"  # "easy" is the plain sum over negatives, which is NT-Xent
    beta, tau_plus = (case.hyper["beta"], case.hyper["tau_plus"]) if hard else (0.0, 0.0)

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        pos, neg = in_batch_similarities(inputs["z1"], inputs["z2"], normalize=False)
        return {"loss": hcl_reweighted(pos, neg, case.hyper["T"], beta, tau_plus)}

    return in_each_precision(case, outputs)


def mochi_hard_negatives(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        draws = MoCHiDraws(*(inputs[name] for name in ("t1_i", "t1_j", "t1_alpha", "t2_j", "t2_beta")))
        made = mochi_mix(inputs["q"], inputs["queue"][inputs["idx_hard"]], draws)
        q, k, queue = (inputs[name] for name in ("q", "k", "queue"))
        logits, labels = moco_logits(q, k, queue, case.hyper["T"], own=made, normalize=False)
        return {"logits": logits, "loss": F.cross_entropy(logits, labels)}

    return in_each_precision(case, outputs)


def pml_contrastive(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z, y = inputs["embeddings"], inputs["labels"]
        unit = F.normalize(z, dim=1)  # the library's default, not that of the losses
        pairs = torch.ones(len(z), len(z), dtype=torch.bool).triu(1)
        d, same = pairwise_distance(z, z)[pairs], (y[:, None] == y)[pairs]
        return {
            "loss": margin_pairs(unit, y),
            "pos_margin02_neg_margin14": margin_pairs(unit, y, 0.2, 1.4),
            "raw_distance": margin_pairs(z, y, neg_margin=2.0),
            "mean_reducer": margin_pairs(unit, y, active_only=False),
            "paper_hadsell_margin2": chopra_contrastive(d, same, 2.0) / 2,  # the paper's factor 1/2
        }

    return in_each_precision(case, outputs)


def pml_triplet(case: Case) -> dict[str, Any]:
    margin = case.hyper["margin"]

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z, y = inputs["embeddings"], inputs["labels"]
        unit = F.normalize(z, dim=1)
        return {
            "loss": triplet(unit, y, margin),
            "default": triplet(unit, y, 0.05),
            "swap": triplet(unit, y, margin, swap=True),
            "smooth": triplet(unit, y, margin, soft=True),
            # These two were recorded with the mean over all triplets, the second with a margin of its own.
            "facenet_squared": triplet(unit, y, margin, squared=True, active_only=False),
            "raw": triplet(z, y, 1.0, active_only=False),
        }

    return in_each_precision(case, outputs)


def pml_lifted_structure(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z, y = inputs["embeddings"], inputs["labels"]
        unit = F.normalize(z, dim=1)
        raw = lifted_structured(z, y)
        return {
            "loss": lifted_structured(unit, y),
            "generalized": lifted_generalized(unit, y),
            "raw": raw,
            "paper_raw": raw,
        }

    return in_each_precision(case, outputs)


def pml_npairs(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z = inputs["embeddings"]
        unit = F.normalize(z, dim=1)
        pair = inputs["anchor_idx"], inputs["positive_idx"]
        raw = n_pair(*(z[index] for index in pair))
        return {
            "loss": n_pair(*(unit[index] for index in pair)),
            "raw_dot": raw,
            # Their regulariser is the mean norm of the whole batch; ours, the paper's, squared and of the pairs.
            "with_l2reg_002": raw + 0.02 * z.norm(dim=1).mean(),
        }

    return in_each_precision(case, outputs)


def pml_supcon_ntxent(case: Case) -> dict[str, Any]:
    tau = case.hyper["T"]
    exact = case.expected.get("out64.ntxent_T001")

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z, y = inputs["embeddings"], inputs["labels"]
        # Their mean leaves out the anchors without a positive, which count as 0 in ours.
        counted = ((y[:, None] == y).sum(dim=1) > 1).sum()
        return {
            "loss": supcon_out(z[:, None], y, tau) * len(y) / counted,
            "ntxent": nt_xent_pairs(z, y, tau),
            "ntxent_T001": nt_xent_pairs(z, y, 0.01),
        }

    results = in_each_precision(case, outputs)
    if exact is not None and "out.ntxent_T001" in results:
        ours = results["out.ntxent_T001"]
        # In float32 theirs adds a small number inside the logarithm, which caps the loss of a pair; float64 is right.
        results["out.ntxent_T001"] = lambda _: torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)
    return results


ADAPTERS: dict[str, Adapter] = {
    "supcon": supcon,
    "hcl_robinson": hcl_robinson,
    "mochi_hard_negatives": mochi_hard_negatives,
    "pml_contrastive": pml_contrastive,
    "pml_triplet": pml_triplet,
    "pml_lifted_structure": pml_lifted_structure,
    "pml_npairs": pml_npairs,
    "pml_supcon_ntxent": pml_supcon_ntxent,
}
