"""Retrieval: does a query rank the images that show the same thing before all others?

With r_1 < r_2 < ... the 0-based ranks of the M relevant images of a query, junk taken out of the ranking before:

    step:       AP = 1/M sum_j  (j + 1) / (r_j + 1)                          (information retrieval, scikit-learn)
    trapezoid:  AP = 1/M sum_j  [ j / r_j  +  (j + 1) / (r_j + 1) ] / 2      (Oxford / Paris; j / r_j is 1 at r_j = 0)

for j = 0 .. M - 1. Junk images count neither for nor against a ranking: they show the same thing too badly to ask for
(Philbin et al. 2007; Radenovic et al. 2018, "Revisiting Oxford and Paris", section 3.2). M counts all relevant images,
not only those that were found. mAP is the mean over the queries that have a relevant image.
"""

from typing import Literal

import torch
from torch import Tensor

from sslcourse.errors import InputError, unknown
from sslcourse.evaluate.result import Result, mean_result

Rule = Literal["trapezoid", "step"]
_CHUNK_BYTES = 16 * 2**20  # of similarities held at once; ranking them takes about ten times that


def mean_average_precision(
    scores: Tensor, relevant: Tensor, junk: Tensor | None = None, *, rule: Rule = "trapezoid"
) -> Tensor:
    """Mean of `average_precision` over the queries that have a relevant image.

    Args:
        scores, relevant, junk, rule: as in `average_precision`.

    Returns:
        scalar in [0, 1], float64.

    Raises:
        InputError: shapes that do not match, NaN scores, or no query with a relevant image.
    """
    ap = average_precision(scores, relevant, junk, rule=rule)
    if bool(ap.isnan().all()):
        raise InputError("mAP needs at least one query with a relevant image that is not junk; there is none.")
    return ap.nanmean()


@torch.no_grad()
def average_precision(
    scores: Tensor, relevant: Tensor, junk: Tensor | None = None, *, rule: Rule = "trapezoid"
) -> Tensor:
    """Average precision of every query; equally scored images are ranked in database order.

    Args:
        scores: (Q, N) similarity of Q queries to N database images, higher is nearer; infinities are allowed.
        relevant: (Q, N) bool, what has to be found.
        junk: (Q, N) bool, what is taken out of the ranking; an image that is both relevant and junk is junk.
        rule: how the area under the precision-recall curve is measured, see the top of the file.

    Returns:
        (Q,) float64 in [0, 1]; NaN for a query without a relevant image, which no ranking can answer.
    """
    if rule not in ("trapezoid", "step"):
        raise unknown("rule of average precision", rule, ["trapezoid", "step"])
    hit, rank = _ranked(scores, relevant, junk)
    before = (hit.cumsum(dim=1) - hit.long()).double()  # relevant images above this one
    at = (before + 1) / (rank + 1)
    if rule == "trapezoid":
        at = (at + torch.where(rank > 0, before / rank.clamp_min(1), 1.0)) / 2
    return (at * hit).sum(dim=1) / hit.sum(dim=1)  # 0 / 0 is NaN


@torch.no_grad()
def precision_at(scores: Tensor, relevant: Tensor, ks: list[int], junk: Tensor | None = None) -> Tensor:
    """Precision among the first k of every query's ranking (mP@k of revisited Oxford and Paris).

    As there, k is cut at the rank of the last relevant image: a query with 3 relevant images can reach 1 at k = 10.

    Args:
        scores, relevant, junk: as in `average_precision`.
        ks: numbers of images looked at, 1 or more.

    Returns:
        (Q, len(ks)) float64; NaN for a query without a relevant image.
    """
    if min(ks, default=1) < 1:
        raise InputError(f"precision_at looks at the first k images, k >= 1; got {ks}.")
    hit, rank = _ranked(scores, relevant, junk)
    last = torch.where(hit, rank + 1, 0).amax(dim=1, keepdim=True)
    columns = []
    for k in ks:
        seen = last.clamp(max=k)
        columns.append((hit & (rank < seen)).sum(dim=1) / seen[:, 0].double())
    return torch.stack(columns, dim=1)


@torch.no_grad()
def micro_average_precision(
    scores: Tensor, relevant: Tensor, junk: Tensor | None = None, *, n_relevant: int | None = None
) -> Tensor:
    """Step-wise AP of all (query, image) pairs in one ranking: are scores comparable *between* queries?

    That is what a copy detector needs, which has one threshold for all (DISC21, Douze et al. 2021, section 4.1).

    Args:
        scores, relevant, junk: any one shape; (Q, N), or the best candidates of every query.
        n_relevant: relevant pairs that exist, where `scores` holds candidates only; those in `relevant` by default.

    Returns:
        scalar in [0, 1], float64.
    """
    flat = [t.reshape(1, -1) for t in (scores, relevant) if t is not None]
    ap = average_precision(flat[0], flat[1], None if junk is None else junk.reshape(1, -1), rule="step")[0]
    found = int((relevant if junk is None else relevant & ~junk).sum())
    total = found if n_relevant is None else n_relevant
    if total < max(found, 1):
        raise InputError(f"micro-AP needs n_relevant >= {max(found, 1)}, the relevant pairs it sees; got {total}.")
    return ap.nan_to_num(0.0) * found / total


def revisited(easy: Tensor, hard: Tensor, junk: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What is relevant and what is junk under the three protocols of revisited Oxford and Paris (section 3.2).

    Args:
        easy, hard, junk: (Q, N) bool annotations.

    Returns:
        "easy", "medium", "hard" -> (relevant, junk), for `mean_average_precision`.
    """
    return {"easy": (easy, junk | hard), "medium": (easy | hard, junk), "hard": (hard, junk | easy)}


@torch.no_grad()
def retrieval_ap(
    bank: Tensor,
    labels: Tensor,
    q: Tensor,
    q_labels: Tensor,
    *,
    rule: Rule = "trapezoid",
    leave_one_out: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Average precision of every query by cosine similarity, where an image of the same label is relevant.

    Memory is bounded by the chunk: 5,000 queries against 100,000 images never hold their 2 GB of similarities.

    Args:
        bank: (N, D) float database features; labels: (N,) int64, -1 for a distractor that is relevant to no query.
        q: (Q, D) float query features; q_labels: (Q,) int64.
        rule: as in `average_precision`.
        leave_one_out: query i is bank image i, which is junk for it.
        chunk: queries ranked at once; by default as many as fill 16 MiB with similarities.

    Returns:
        (Q,) float64, NaN for a query whose label the bank lacks.
    """
    _check_features(bank, labels, q, q_labels, leave_one_out)
    bank, q = torch.nn.functional.normalize(bank, dim=1), torch.nn.functional.normalize(q, dim=1)
    labels, q_labels = labels.to(bank.device), q_labels.to(bank.device)
    chunk = chunk or max(1, _CHUNK_BYTES // (len(bank) * bank.element_size()))
    parts = []
    for start in range(0, len(q), chunk):
        rows = slice(start, start + chunk)
        relevant = (q_labels[rows, None] == labels) & (labels >= 0)
        junk = None
        if leave_one_out:
            junk = torch.arange(len(q), device=q.device)[rows, None] == torch.arange(len(bank), device=q.device)
        parts.append(average_precision(q[rows] @ bank.T, relevant, junk, rule=rule))
    return torch.cat(parts)


def retrieval_map(
    bank: Tensor, labels: Tensor, q: Tensor, q_labels: Tensor, *, rule: Rule = "trapezoid", seed: int = 0
) -> Result:
    """mAP of the test images as queries against the training images, with a bootstrap interval over the queries.

    `detail` holds the rule, the bank size and how many queries were left out because the bank lacks their class.
    """
    ap = retrieval_ap(bank, labels, q, q_labels, rule=rule)
    answered = ap[~ap.isnan()]
    if not len(answered):
        raise InputError("Retrieval needs a query whose class is in the bank; there is none.")
    detail = {"protocol": "retrieval", "rule": rule, "n_bank": len(bank), "left_out": len(ap) - len(answered)}
    return mean_result("retrieval", answered, "images", detail, seed=seed)


def _ranked(scores: Tensor, relevant: Tensor, junk: Tensor | None) -> tuple[Tensor, Tensor]:
    """In the order of each ranking: (Q, N) bool, is the image relevant; (Q, N) int64, its 0-based rank without junk."""
    _check(scores, relevant, junk)
    order = scores.argsort(dim=1, descending=True, stable=True)
    hit = relevant.gather(1, order)
    if junk is None:
        return hit, torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    counted = ~junk.gather(1, order)
    return hit & counted, (counted.cumsum(dim=1) - 1).clamp_min(0)


def _check(scores: Tensor, relevant: Tensor, junk: Tensor | None) -> None:
    if scores.ndim != 2 or relevant.shape != scores.shape or (junk is not None and junk.shape != scores.shape):
        other = "" if junk is None else f" and junk {tuple(junk.shape)}"
        raise InputError(
            f"Average precision needs (queries, images) throughout; got scores {tuple(scores.shape)}, "
            f"relevant {tuple(relevant.shape)}{other}."
        )
    if relevant.dtype != torch.bool or (junk is not None and junk.dtype != torch.bool):
        raise InputError("Average precision needs `relevant` and `junk` as bool tensors.")
    if bool(scores.isnan().any()):
        raise InputError("Average precision needs scores without NaN; did the training diverge?")


def _check_features(bank: Tensor, labels: Tensor, q: Tensor, q_labels: Tensor, leave_one_out: bool) -> None:
    if bank.ndim != 2 or q.ndim != 2 or bank.shape[1] != q.shape[1] or not len(bank) or not len(q):
        raise InputError(f"Retrieval needs features (N, D) and (Q, D); got {tuple(bank.shape)} and {tuple(q.shape)}.")
    if labels.shape != bank.shape[:1] or q_labels.shape != q.shape[:1]:
        raise InputError(
            f"Retrieval needs a label for each of {len(bank)} bank and {len(q)} query features; got "
            f"{tuple(labels.shape)} and {tuple(q_labels.shape)}."
        )
    if not bool(bank.isfinite().all() and q.isfinite().all()):
        raise InputError("Retrieval needs finite features; found NaN or infinity: did the training diverge?")
    if leave_one_out and len(q) != len(bank):
        raise InputError(f"Leave-one-out needs the bank as queries; got {len(bank)} features and {len(q)} queries.")
