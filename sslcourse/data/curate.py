"""Curation of an uncurated pool with the help of embeddings: remove copies, keep what resembles a curated set.

Oquab et al. 2023, "DINOv2", arXiv:2304.07193, section 3: deduplication by cosine and connected components, then
retrieval for every curated image, or sampling from the clusters that curated images fall into.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError

_ROWS = 2048  # similarities computed at a time


def retrieval_dedup(emb: Tensor, thr: float = 0.6) -> Tensor:
    """Keep one image of each group of copies: (N, D) -> (N,) bool, True = keep.

    Two images are joined where their cosine is above `thr`; the groups are the connected components, so a chain of
    small edits is one group whatever the order, and the first image of each stays.

    Args:
        emb: (N, D) float embeddings, L2-normalised inside.
        thr: in [-1, 1]; the paper uses 0.6 within the pool and 0.45 against test sets.
    """
    return components(emb, thr) == torch.arange(len(emb), device=emb.device)


@torch.no_grad()
def near_copies(emb: Tensor, held_out: Tensor, thr: float = 0.45) -> Tensor:
    """(N,) bool: which of (N, D) embeddings have a cosine above `thr` with one of (M, D) held-out images."""
    _check("near_copies", emb)
    _check("near_copies", held_out)
    if emb.shape[1] != held_out.shape[1]:
        raise InputError(f"near_copies needs one width; got {tuple(emb.shape)} and {tuple(held_out.shape)}.")
    bank = F.normalize(held_out.float(), dim=1)
    parts = F.normalize(emb.float(), dim=1).split(_ROWS)
    return torch.cat([(part @ bank.T).amax(dim=1) > thr for part in parts])


@torch.no_grad()
def components(emb: Tensor, thr: float) -> Tensor:
    """(N,) int64: for each image the first index of its group of copies, as in `retrieval_dedup`."""
    _check("retrieval_dedup", emb)
    if not -1 <= thr <= 1:
        raise InputError(f"retrieval_dedup got thr={thr}: a cosine lies between -1 and 1.")
    x = F.normalize(emb.float(), dim=1)
    parent = list(range(len(x)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for start in range(0, len(x), _ROWS):
        rows, columns = (x[start : start + _ROWS] @ x.T > thr).nonzero(as_tuple=True)
        for i, j in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if i < j:
                a, b = root(i), root(j)
                parent[max(a, b)] = min(a, b)
    return torch.tensor([root(i) for i in range(len(x))], device=emb.device)


@torch.no_grad()
def curate_by_retrieval(
    curated: Tensor, pool: Tensor, k: int = 4, per_cluster: int = 0, *, clusters: int = 0, seed: int = 0
) -> Tensor:
    """Indices of the images of a pool that resemble a curated set, each once, ascending.

    With `per_cluster` = 0: the k nearest images of the pool to each curated one (for large curated sets). Otherwise
    the pool is clustered, and `per_cluster` random images are taken from every cluster that is the nearest of at least
    k curated images (for small ones).

    Args:
        curated: (M, D) float, the queries; pool: (N, D) float; both L2-normalised inside.
        k: neighbours an image, at most N are taken; or the curated images that make a cluster count.
        per_cluster: images taken from a cluster, all where it has fewer.
        clusters: number of clusters; by default about one for 50 images of the pool.
        seed: of the clustering and of the choice.
    """
    _check("curate_by_retrieval", curated)
    _check("curate_by_retrieval", pool)
    if curated.shape[1] != pool.shape[1] or k < 1 or per_cluster < 0 or not 0 <= clusters <= len(pool):
        raise InputError(
            f"curate_by_retrieval needs one width, k >= 1, per_cluster >= 0 and at most {len(pool)} clusters; got "
            f"{tuple(curated.shape)}, {tuple(pool.shape)}, {k=}, {per_cluster=}, {clusters=}."
        )
    queries, bank = F.normalize(curated.float(), dim=1), F.normalize(pool.float(), dim=1)
    if per_cluster:
        return _from_clusters(queries, bank, k, per_cluster, clusters or max(1, len(bank) // 50), seed)
    nearest = [(part @ bank.T).topk(min(k, len(bank)), dim=1).indices.flatten() for part in queries.split(_ROWS)]
    return torch.cat(nearest).unique()


def _from_clusters(queries: Tensor, bank: Tensor, k: int, per_cluster: int, clusters: int, seed: int) -> Tensor:
    from sslcourse.losses.deepcluster import spherical_kmeans

    generator = torch.Generator().manual_seed(seed)
    start = torch.randperm(len(bank), generator=generator)[:clusters].to(bank.device)
    labels, centroids = spherical_kmeans(bank, bank[start])
    hits = (queries @ centroids.T).argmax(dim=1).bincount(minlength=clusters)
    taken = []
    for cluster in (hits >= k).nonzero().flatten().tolist():
        members = (labels == cluster).nonzero().flatten()
        taken.append(members[torch.randperm(len(members), generator=generator)[:per_cluster].to(members.device)])
    return torch.cat(taken).sort().values if taken else torch.empty(0, dtype=torch.int64, device=bank.device)


def _check(name: str, x: Tensor) -> None:
    if x.ndim != 2 or len(x) == 0 or not bool(x.isfinite().all()):
        raise InputError(f"{name} needs finite embeddings (N, D), N >= 1; got {tuple(x.shape)}.")
