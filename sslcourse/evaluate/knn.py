"""k nearest neighbours: does a frozen representation put images of one class next to each other?

Each query looks up its k most similar bank features and they vote for their labels (Wu et al. 2018, Unsupervised
Feature Learning via Non-Parametric Instance Discrimination, section 3.4; the protocol of DINO, Caron et al. 2021):

    score(c) = sum_{i in N_k, y_i = c} w_i,    w_i = exp(s_i / T)  (weighted)   or   w_i = 1  (plain)

with s_i the cosine similarity. There is nothing to train and nothing to tune but k, so it is the first protocol to try.
"""

import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.neighbours import neighbours
from sslcourse.evaluate.result import Result, accuracy


@torch.no_grad()
def knn_classify(
    bank: Tensor,
    labels: Tensor,
    q: Tensor,
    k: int = 20,
    T: float = 0.07,
    n_cls: int | None = None,
    *,
    weighted: bool = True,
    chunk: int | None = None,
    leave_one_out: bool = False,
) -> Tensor:
    """Class scores of every query by the vote of its k nearest bank features.

    The votes of one query are divided by their sum, softmax(s / T) over its neighbours: the same ranking of classes
    as exp(s / T), and no temperature can overflow it. Equally similar neighbours at rank k enter in bank order.

    Args:
        bank: (N, D) float features, L2-normalised inside.
        labels: (N,) int64 classes of the bank, 0 .. n_cls - 1.
        q: (Q, D) float query features, L2-normalised inside.
        k: neighbours that vote.
        T: temperature of the weighted vote; 0.07 in both papers.
        n_cls: number of classes; the largest label + 1 by default.
        weighted: False gives every neighbour one equal vote.
        chunk: queries compared at once; by default as many as keep their similarities near the cache.
        leave_one_out: query i is bank feature i and does not vote for itself.

    Returns:
        (Q, n_cls) float, rows sum to 1; `argmax(1)` is the prediction.

    Raises:
        InputError: shapes or devices that do not match, NaN features, k larger than the bank, a label out of range.
    """
    n_cls = _check(bank, labels, q, k, T, n_cls, leave_one_out)
    bank, q = _unit(bank, "bank"), _unit(q, "query")
    labels = labels.to(bank.device)
    s, index = neighbours(bank, q, k, chunk=chunk, leave_one_out=leave_one_out)
    votes = (s / T).softmax(dim=1) if weighted else torch.full_like(s, 1 / k)
    return bank.new_zeros(len(q), n_cls).scatter_add_(1, labels[index], votes)


def knn_accuracy(
    bank: Tensor,
    labels: Tensor,
    q: Tensor,
    q_labels: Tensor,
    k: int = 20,
    T: float = 0.07,
    *,
    weighted: bool = True,
    name: str = "knn",
) -> Result:
    """Top-1 accuracy of `knn_classify` with its 95 % interval over the query images.

    A bank smaller than k votes as a whole. `detail` holds k, T, the vote, the bank size and the top-5 accuracy.
    """
    if q_labels.shape != q.shape[:1]:
        raise InputError(f"kNN got {len(q)} query features but query labels of shape {tuple(q_labels.shape)}.")
    if len(q) == 0:
        raise InputError("kNN accuracy needs at least one query image.")
    k = min(k, len(bank))
    n_cls = 1 + int(max(labels.max(), q_labels.max())) if len(labels) else None
    scores = knn_classify(bank, labels, q, k, T, n_cls, weighted=weighted)
    detail = {
        "protocol": "knn",
        "k": k,
        "T": T if weighted else None,
        "vote": "weighted" if weighted else "plain",
        "n_bank": len(bank),
    }
    return accuracy(name, scores, q_labels, detail)


def _unit(x: Tensor, what: str) -> Tensor:
    """Rows of unit length in at least float32; a zero row stays zero."""
    x = x if x.dtype == torch.float64 else x.float()
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if not bool(norm.isfinite().all()):
        bad = int((~norm.isfinite()).sum())
        raise InputError(f"kNN: {bad} of {len(x)} {what} features hold NaN or infinity; did the training diverge?")
    if bool(((norm - 1).abs() < 1e-6).all()):
        return x  # normalised already: a large bank is not copied
    return x / norm.clamp_min(torch.finfo(x.dtype).tiny)


def _check(bank: Tensor, labels: Tensor, q: Tensor, k: int, T: float, n_cls: int | None, leave_one_out: bool) -> int:
    """Raise an `InputError` for arguments that cannot be used; else the number of classes."""
    if bank.ndim != 2 or q.ndim != 2 or bank.shape[1] != q.shape[1]:
        raise InputError(f"kNN needs features (N, D) and (Q, D); got {tuple(bank.shape)} and {tuple(q.shape)}.")
    if not bank.is_floating_point() or not q.is_floating_point():
        raise InputError(f"kNN needs float features; got {bank.dtype} and {q.dtype}.")
    if bank.device != q.device:
        raise InputError(f"kNN needs bank and queries on one device; got {bank.device} and {q.device}.")
    if labels.shape != bank.shape[:1] or labels.is_floating_point():
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"kNN needs one integer label for each of the {len(bank)} bank features; got {got}.")
    if T <= 0:
        raise InputError(f"kNN needs a temperature above 0; got T={T}.")
    if leave_one_out and q.shape != bank.shape:
        raise InputError(f"Leave-one-out needs the bank as queries; got {len(bank)} features and {len(q)} queries.")
    most = len(bank) - leave_one_out
    if not 1 <= k <= most:
        raise InputError(f"kNN with k={k} needs 1 <= k <= {most}, the features that can vote.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (n_cls is not None and high >= n_cls):
        allowed = f"0 .. {n_cls - 1}" if n_cls is not None else "0 or more"
        raise InputError(f"kNN labels must be {allowed}; found {low} .. {high} (-1 marks an image without a label).")
    return high + 1 if n_cls is None else n_cls
