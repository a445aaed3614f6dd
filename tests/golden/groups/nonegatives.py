"""Adapters for BYOL, SimSiam, SwAV and DeepCluster."""

from functools import partial
from typing import Any

import torch
from groups import dinov2, distillation
from groups.moco import Stub
from groups.precision import in_each_precision
from groups.states import gradients_of, state_after
from loading import Adapter, Case
from torch import Tensor, nn

from sslcourse.losses.byol import byol_loss, regression_loss
from sslcourse.losses.deepcluster import (
    inverse_sqrt_lr,
    kmeans_pseudolabels,
    memory_labels,
    sobel,
    spherical_kmeans,
    uniform_sample,
    whiten,
)
from sslcourse.losses.moco import queue_enqueue
from sslcourse.losses.simsiam import simsiam_loss
from sslcourse.losses.swav import normalize_prototypes, sinkhorn, swav_codes, swav_loss
from sslcourse.methods.byol import BYOL
from sslcourse.methods.simsiam import SimSiam
from sslcourse.nn.heads import SimplicialEmbedding
from sslcourse.train.schedules import drop_gradients, warmup_then_cosine
from sslcourse.zoo import nonegatives as readers

JAX_EPS = 1e-6  # the official JAX code bounds the squared norm by 1e-12


class StubWithHead(Stub):
    """The backbone of the recordings with the linear layer at its end, maybe with simplicial embeddings behind it."""

    def __init__(self, width: int, out: int, sem: bool) -> None:
        super().__init__(width)
        self.fc = nn.Linear(width, out)
        self.sem = nn.Sequential(nn.Linear(out, out), nn.BatchNorm1d(out), SimplicialEmbedding()) if sem else None
        self.num_features = out

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(super().forward(x))
        return x if self.sem is None else self.sem(x)


def byol_loss_lucidrains(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        p1, p2, z1, z2 = (inputs[name] for name in ("p1", "p2", "z1", "z2"))
        return {"loss": byol_loss(p1, p2, z1, z2), "per_sample": regression_loss(p1, z2)}

    return in_each_precision(case, outputs)


def byol_deepmind_loss(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        p1, p2, z1, z2 = (inputs[name] for name in ("p1", "p2", "z1", "z2"))
        per_sample = regression_loss(p1, z2, eps=JAX_EPS)
        return {"loss": byol_loss(p1, p2, z1, z2, eps=JAX_EPS).reshape(1), "per_sample": per_sample}

    return in_each_precision(case, outputs)


def byol_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    config = BYOL.Config(hidden=hyper["hidden"], dim=hyper["projection_size"], m=hyper["beta"])
    sem = hyper["use_simplicial_embeddings"]
    model = BYOL(config, StubWithHead(hyper["width"], case.state["net.fc.bias"].shape[0], sem))
    model.load_state_dict(readers.byol_pytorch(case.state, model))
    out = model([case.inputs["x"], case.inputs["view2"]])
    out["loss"].backward()
    model.after_step(0, 1)  # the momentum of step 0 of the schedule is beta
    gradients = gradients_of(case, readers.byol_pytorch, model, "net.", "online_encoder.net.")
    return {"out.loss": out["loss"]} | gradients | state_after(case, readers.byol_pytorch, model)


def simsiam_case(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": simsiam_loss(*(inputs[name] for name in ("p1", "p2", "z1", "z2")))}

    return in_each_precision(case, outputs)


def simsiam_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    config = SimSiam.Config(dim=hyper["dim"], bottleneck=hyper["pred_dim"])
    model = SimSiam(config, Stub(hyper["width"]))
    model.load_state_dict(readers.simsiam(case.state, model))
    out = model([case.inputs["x1"], case.inputs["x2"]])
    out["loss"].backward()
    values = {"loss": out["loss"], "p1": out["p1"], "p2": out["p2"], "z1": out["embedding"], "z2": out["positive"]}
    results = {f"out.{name}": value for name, value in values.items()}
    return results | gradients_of(case, readers.simsiam, model) | state_after(case, readers.simsiam, model)


def swav_sinkhorn(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        codes = sinkhorn(inputs["scores"], case.hyper["epsilon"], case.hyper["iterations"])
        return {"codes": codes, "loss": 0 * codes.sum()}  # the recording puts 0 where its other cases have a loss

    return in_each_precision(case, outputs)


def swav_train_step(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    proj, prototypes = nn.Linear(hyper["D"], hyper["D"]), nn.Linear(hyper["D"], hyper["K"], bias=False)
    model = nn.ModuleDict({"proj": proj, "prototypes": prototypes})
    model.load_state_dict(case.state)
    optimizer = torch.optim.SGD(model.parameters(), lr=hyper["lr"], momentum=0.9, weight_decay=1e-6)
    views, globals_ = sum(hyper["nmb_crops"]), hyper["crops_for_assign"]
    queues = torch.zeros(len(globals_), hyper["queue_len"], hyper["D"])
    results: dict[str, Any] = {}
    for step in range(sum(key.startswith("out.loss") for key in case.expected)):
        normalize_prototypes(prototypes.weight)
        crops = [case.inputs[f"crop{step}_{v}"] for v in range(views)]
        z = nn.functional.normalize(proj(torch.cat(crops)), dim=1)
        scores = prototypes(z).chunk(views)
        full = queues.shape[1] > 0 and bool(queues.abs().sum(dim=2).all())
        codes = []
        for i, v in enumerate(globals_):
            queued = queues[i] @ prototypes.weight.T if full else None
            codes.append(swav_codes(scores[v], queued, hyper["epsilon"]))
        loss = swav_loss(scores, codes, hyper["temperature"])
        optimizer.zero_grad()
        loss.backward()
        if step < hyper["freeze_prototypes_niters"]:
            drop_gradients(model, "prototypes")
        grads = {
            f"grad_param{step}.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
        }
        for i, v in enumerate(globals_ if hyper["queue_len"] else ()):
            queue_enqueue(queues[i], step * hyper["bs"] % hyper["queue_len"], z.chunk(views)[v])
        if hyper["queue_len"]:
            results[f"out.queue{step}"] = partial(_same_rows, queues.clone())
        results |= {f"out.loss{step}": loss.double()} | grads
        optimizer.step()
        results[f"out.prototypes{step}"] = prototypes.weight.detach().clone()
    after = {f"state_after/{name}": value.clone() for name, value in model.state_dict().items()}
    return results | after


def _same_rows(ours: Tensor, official: Tensor) -> None:
    """Ours is a ring, theirs shifts; the order means nothing to Sinkhorn."""
    for mine, theirs in zip(ours, official, strict=True):
        order = [sorted(range(len(x)), key=x.tolist().__getitem__) for x in (mine, theirs)]
        torch.testing.assert_close(mine[order[0]], theirs[order[1]], rtol=1e-4, atol=1e-5)


def deepcluster_preprocess(case: Case) -> dict[str, Any]:
    x, hyper = case.inputs["x"], case.hyper
    y = whiten(x, hyper["pca"])
    labels = kmeans_pseudolabels(y, hyper["k"], 20)

    def objective(labels: Tensor) -> float:
        clusters = [y[labels == c] for c in labels.unique()]
        return sum(float((c - c.mean(dim=0)).square().sum()) for c in clusters)

    def no_worse(official: Tensor) -> None:  # faiss starts at random points: minima differ a little
        ours = min(objective(kmeans_pseudolabels(y, hyper["k"], 20, seed)) for seed in range(10))
        assert ours <= 1.02 * float(official), f"k-means objective {ours}, official {float(official)}"

    def all_used(official: Tensor) -> None:  # labels are arbitrary; what counts is that no cluster is empty
        assert official.shape == labels.shape
        assert len(labels.unique()) == hyper["k"]

    return {
        "out.gram": y @ y.T,
        "out.abs_y": y.abs(),
        "out.kmeans_objective": no_worse,
        "out.assign_example": all_used,
        "out.arranged": all_used,
    }


def deepcluster_sampler_sobel_lr(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    if "lr0" in hyper:
        lr = [inverse_sqrt_lr(t, hyper["lr0"], hyper["wd"]) for t in hyper["t"]]
        return {"out.lr": torch.tensor(lr, dtype=torch.float64)}
    if "images_lists" not in hyper:
        return {"out.y": sobel(case.inputs["x"])}
    labels = torch.full((hyper["N"],), -1)  # an image may be in no list
    for cluster, images in enumerate(hyper["images_lists"]):
        labels[images] = cluster
    clusters = [cluster for cluster, images in enumerate(hyper["images_lists"]) if images]
    each = hyper["N"] // len(clusters) + 1

    def sampled_alike(official: Tensor) -> None:  # another random stream
        for drawn in (official, uniform_sample(labels, torch.Generator().manual_seed(0), hyper["N"])):
            counts = labels[drawn].bincount(minlength=len(hyper["images_lists"]))
            assert drawn.shape == official.shape
            assert (labels[drawn] >= 0).all()
            assert counts.max() <= each
            # What is cut off at random is the surplus of all clusters together.
            assert counts[clusters].min() >= each - (each * len(clusters) - hyper["N"])

    return {"out.indexes": sampled_alike}


def deepclusterv2_cluster_memory(case: Case) -> dict[str, Any]:
    hyper, memory = case.hyper, case.inputs["memory_embeddings"]
    labels, results = [], {}
    for head, k in enumerate(hyper["nmb_prototypes"]):
        bank = memory[head % hyper["nbanks"]]  # the heads go through the memories of the views in turn
        found, centroids = spherical_kmeans(bank, bank[case.inputs[f"init_perm{head}"][:k]], hyper["iters"])
        labels.append(memory_labels(found, case.inputs["memory_index"], hyper["dataset_size"]))
        results[f"out.centroids{head}"] = centroids
    return results | {"out.assignments": torch.stack(labels)}


def swav_lr_schedule(case: Case) -> dict[str, Any]:
    hyper, per_epoch = case.hyper, case.hyper["iters_per_epoch"]
    total, warmup = hyper["epochs"] * per_epoch, hyper["warmup_epochs"] * per_epoch
    lr = [
        warmup_then_cosine(k, total, warmup, hyper["base_lr"], hyper["final_lr"], start=hyper["start_warmup"])
        for k in range(total)
    ]
    return {"out.lr": torch.tensor(lr, dtype=torch.float64)}


ADAPTERS: dict[str, Adapter] = {
    "byol_loss_lucidrains": byol_loss_lucidrains,
    "byol_deepmind_loss": byol_deepmind_loss,
    "byol_full_module_lucidrains": byol_full_module,
    "simsiam_loss": simsiam_case,
    "simsiam_full_module": simsiam_full_module,
    "swav_sinkhorn": swav_sinkhorn,
    "swav_train_step": swav_train_step,
    "swav_lr_schedule": swav_lr_schedule,
    "deepcluster_preprocess_kmeans": deepcluster_preprocess,
    "deepcluster_sampler_sobel_lr": deepcluster_sampler_sobel_lr,
    "deepclusterv2_cluster_memory": deepclusterv2_cluster_memory,
    **distillation.CONTRASTIVE,
    **dinov2.CONTRASTIVE,
}
MASKED: dict[str, Adapter] = distillation.MASKED
