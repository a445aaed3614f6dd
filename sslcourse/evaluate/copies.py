"""Copy detection: does an edited image find its original among others?

mAP asks each query for itself; micro-AP ranks all (query, image) pairs together, so it also asks whether one threshold
on the similarity works for all queries (Copydays; DISC21, Douze et al. 2021).
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcourse.data.edits import EDITS, copy_queries
from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate.descriptors import Whitening
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.result import Result, mean_result
from sslcourse.evaluate.retrieval import micro_average_precision, retrieval_ap

CANDIDATES = 100  # best images of each query that enter micro-AP, as DISC21's evaluation limits them


def copy_detection(
    encoder: Encoder,
    database: Images,
    *,
    n: int = 100,
    whiten_on: Images | None = None,
    dim: int | None = None,
    seed: int = 0,
) -> Result:
    """mAP of edited images as queries against all of `database`, with a bootstrap interval over the originals.

    `detail` has micro-AP and the mAP of every kind of edit.

    Args:
        database: images; labels play no part.
        n: originals that are edited, all kinds of edit each; at most as many as there are.
        whiten_on: other images to learn PCA whitening from; None compares features as they are.
        dim: directions that whitening keeps; by default all that as many images can tell.
    """
    queries, kinds = copy_queries(database, min(n, len(database)), seed=seed)
    bank, q = encoder(database), encoder(queries)
    if whiten_on is not None:
        learned = encoder(whiten_on)
        whiten = Whitening.fit(learned, dim or min(learned.shape[1], len(learned) - 1))
        bank, q = whiten(bank), whiten(q)
    if not bool(bank.isfinite().all() and q.isfinite().all()):
        raise InputError("Copy detection needs finite features; found NaN or infinity: did the training diverge?")
    ap = retrieval_ap(bank, torch.arange(len(bank)), q, queries.labels)
    per_original = ap.view(len(EDITS), -1).mean(dim=0)  # edits of one image are not independent
    by_kind = ap.view(len(EDITS), -1).mean(dim=1).tolist()
    detail = {
        "protocol": "copy",
        "micro_ap": _micro_ap(bank, q, queries.labels).item(),
        "map_by_edit": dict(zip(dict.fromkeys(kinds), by_kind, strict=True)),
        "n_queries": len(q),
        "n_database": len(bank),
        "whitened": whiten_on is not None,
        "seed": seed,
    }
    return mean_result("copy", per_original, "originals", detail, seed=seed)


def _micro_ap(bank: Tensor, q: Tensor, targets: Tensor) -> Tensor:
    bank, q = normalize(bank, dim=1), normalize(q, dim=1)
    k, step = min(CANDIDATES, len(bank)), max(1, 2**22 // len(bank))
    found = [(part @ bank.T).topk(k) for part in q.split(step)]
    scores, index = (torch.cat([f[i] for f in found]) for i in (0, 1))
    return micro_average_precision(scores, index == targets[:, None].to(index.device), n_relevant=len(q))
