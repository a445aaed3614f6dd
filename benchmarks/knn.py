"""kNN votes, retrieval and the linear probe: time against DINO's algorithm and faiss, memory against whole matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row
from sslcourse.evaluate import fit_linear, knn_classify, retrieval_ap
from sslcourse.evaluate.retrieval import average_precision

BANK, QUERIES, WIDTH, CLASSES, K, T = 20_000, 2_000, 384, 1_000, 20, 0.07


def _features() -> tuple[Tensor, Tensor, Tensor]:
    """Unit-length bank and queries around class centres, and the bank's labels."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, WIDTH, generator=g)
    labels, wanted = torch.randint(CLASSES, (BANK,), generator=g), torch.randint(CLASSES, (QUERIES,), generator=g)
    bank = centres[labels] + 2 * torch.randn(BANK, WIDTH, generator=g)
    queries = centres[wanted] + 2 * torch.randn(QUERIES, WIDTH, generator=g)
    return F.normalize(bank, dim=1), labels, F.normalize(queries, dim=1)


def dino_votes(bank: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The algorithm of DINO's evaluation: a hundred chunks, one-hot labels of all neighbours, weighted and summed."""
    chunk, votes = len(queries) // 100, []
    for part in queries.split(chunk):
        similarity, index = (part @ bank.T).topk(K, largest=True, sorted=True)
        one_hot = torch.zeros(len(part) * K, CLASSES).scatter_(1, labels[index].view(-1, 1), 1)
        weights = (similarity / T).exp()
        votes.append((one_hot.view(len(part), K, CLASSES) * weights[:, :, None]).sum(1))
    scores = torch.cat(votes)
    return scores / scores.sum(1, keepdim=True)


def against_dino() -> Pair:
    bank, labels, queries = _features()
    return lambda: knn_classify(bank, labels, queries, K, T, CLASSES), lambda: dino_votes(bank, labels, queries)


def against_faiss() -> Pair:
    import faiss

    bank, labels, queries = _features()

    def search() -> Tensor:
        index = faiss.IndexFlatIP(WIDTH)
        index.add(bank.numpy())
        similarity, neighbour = (torch.from_numpy(found) for found in index.search(queries.numpy(), K))
        weights = (similarity / T).softmax(1)
        return torch.zeros(len(queries), CLASSES).scatter_add_(1, labels[neighbour], weights)

    return lambda: knn_classify(bank, labels, queries, K, T, CLASSES), search


def whole_matrix() -> Pair:
    """The same votes with all similarities at once."""
    bank, labels, queries = _features()

    def at_once() -> Tensor:
        similarity, index = (queries @ bank.T).topk(K)
        weights = (similarity / T).softmax(1)
        return torch.zeros(len(queries), CLASSES).scatter_add_(1, labels[index], weights)

    return lambda: knn_classify(bank, labels, queries, K, T, CLASSES), at_once


def whole_ranking() -> Pair:
    """mAP with all rankings at once."""
    bank, labels, queries = _features()
    wanted = labels[:QUERIES]

    def at_once() -> Tensor:
        return average_precision(queries @ bank.T, wanted[:, None] == labels)

    return lambda: retrieval_ap(bank, labels, queries, wanted), at_once


def probe() -> Pair:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (50_000,), generator=g)
    x = torch.randn(10, 512, generator=g)[labels] + 8 * torch.randn(50_000, 512, generator=g)
    return lambda: fit_linear(x, labels), lambda: None


TASK = f"kNN votes, {BANK:,} bank, {QUERIES:,} queries, D = {WIDTH}, {CLASSES:,} classes"
ROWS = [
    Row("knn", TASK, "DINO's algorithm", against_dino, target=2.5),
    Row("knn", TASK, "faiss-cpu IndexFlatIP", against_faiss, target=1 / 1.2, requires=("faiss",)),
    Row("knn", "its peak memory", "all similarities at once", whole_matrix, target=0.25, kind="memory"),
    Row("retrieval", f"peak memory of mAP, {QUERIES:,} queries, {BANK:,} images", "all rankings at once", whole_ranking,
        target=0.25, kind="memory"),
    Row("linear-probe", "L-BFGS probe with its sweep, 50,000 x 512, 10 classes", "a budget of 30 s", probe,
        target=30.0, kind="seconds", check=None),
]  # fmt: skip
