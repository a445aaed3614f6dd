"""Adapters for MoCo v1 to v3 and DenseCL: their losses, their schedules, and whole training steps of their modules."""

from typing import Any

import torch
import torch.nn.functional as F
from groups.precision import in_each_precision
from loading import Adapter, Case
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.losses import dense_info_nce, densecl_match, info_nce, moco_logits, queue_enqueue, symmetric_moco_v3
from sslcourse.methods.densecl import DenseCL
from sslcourse.methods.moco import MoCo
from sslcourse.methods.moco_v3 import MoCoV3
from sslcourse.nn.positions import sincos_2d
from sslcourse.train.optim import cosine_ema_schedule, warmup_cosine
from sslcourse.zoo import contrastive as readers


class Stub(nn.Module):
    """The backbone of the recordings: convolution with stride 2, batch norm, ReLU, mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.num_features = width

    def forward_map(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_map(x).mean(dim=(2, 3))


def moco_infonce_queue(case: Case) -> dict[str, Any]:
    queue = case.inputs["queue0"].T.clone()  # the official queue holds keys as columns
    ptr = 0
    results: dict[str, Any] = {}
    for step in range(case.hyper["steps"]):
        q, k = case.inputs[f"q{step}"].requires_grad_(), case.inputs[f"k{step}"]
        logits, labels = moco_logits(q, k, queue, case.hyper["T"])
        loss = F.cross_entropy(logits, labels)
        (gradient,) = torch.autograd.grad(loss, q)
        ptr = queue_enqueue(queue, ptr, k)
        after = {"logits": logits, "loss": loss, "queue": queue.T.clone(), "ptr": torch.tensor([ptr])}
        results |= {f"out.{name}{step}": value for name, value in after.items()} | {f"grad.q{step}": gradient}
    return results


def moco_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    head = "mlp" if hyper["mlp"] else "linear"
    config = MoCo.Config(head=head, dim=hyper["C"], queue=hyper["K"], tau=hyper["T"], m=hyper["m"])
    model = MoCo(config, Stub(hyper["width"]))
    model.load_state_dict(readers.moco(case.state, model))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=hyper["lr"], momentum=0.9, weight_decay=1e-4)
    results: dict[str, Any] = {}
    steps = sum(name.startswith("im_q") for name in case.inputs)
    for step in range(steps):
        model.after_step(step, steps)  # the official code moves the key encoder before it is used, ours after a step
        queue = model.queue.keys.clone()
        out = model([case.inputs[f"im_q{step}"], case.inputs[f"im_k{step}"], torch.arange(hyper["N"])])
        logits, _ = moco_logits(out["embedding"], out["positive"], queue, hyper["T"])
        results |= {f"out.logits{step}": logits, f"out.loss{step}": out["loss"]}
        optimizer.zero_grad()
        out["loss"].backward()
        results |= _gradients(case, f"grad_param{step}.", readers.moco, model)
        optimizer.step()
    return results | _state_after(case, readers.moco, model)


def mocov3_contrastive_loss(case: Case) -> dict[str, Any]:
    tau = case.hyper["T"]

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        q1, q2, k1, k2 = (inputs[name] for name in ("q1", "q2", "k1", "k2"))
        return {
            "loss": symmetric_moco_v3(q1, q2, k1, k2, tau),
            # One direction has MoCo v3's factor 2 tau, too.
            "ctr_q1k2": 2 * tau * info_nce(q1, k2, tau=tau),
            "ctr_q2k1": 2 * tau * info_nce(q2, k1, tau=tau),
        }

    return in_each_precision(case, outputs)


def mocov3_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    vit = any(".head." in key for key in case.state)  # the projector is called `head` in its ViTs, `fc` in its ResNets
    config = MoCoV3.Config(
        hidden=hyper["mlp_dim"],
        dim=hyper["dim"],
        projector_layers=3 if vit else 2,
        predictor_bn=vit,
        tau=hyper["T"],
        m=hyper["m"],
    )
    model = MoCoV3(config, Stub(hyper["width"]))
    model.load_state_dict(readers.moco_v3(case.state, model))
    model.after_step(-1, 1)  # before the forward pass, as there; the momentum of "step" 0 of the schedule is m
    out = model([case.inputs["x1"], case.inputs["x2"]])
    out["loss"].backward()
    gradients = _gradients(case, "grad_param.", readers.moco_v3, model)
    return {"out.loss": out["loss"]} | gradients | _state_after(case, readers.moco_v3, model)


def mocov3_schedules(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    epochs = case.inputs["epoch"].tolist()
    lr = [warmup_cosine(e, hyper["epochs"], hyper["warmup_epochs"], hyper["lr"]) for e in epochs]
    m = [cosine_ema_schedule(e, hyper["epochs"], hyper["moco_m"]) for e in epochs]
    return {f"out.{name}": torch.tensor(x, dtype=torch.float64) for name, x in (("lr", lr), ("m", m))}


def mocov3_sincos_pos_embed(case: Case) -> dict[str, Any]:
    # The official grid is transposed (its tokens run down the columns), which a square one hides; ours is asked for the
    # transposed grid. And CLS has zeros there, where our ViT has them, too.
    positions = sincos_2d(case.hyper["w"], case.hyper["h"], case.hyper["D"], first="row")
    return {"out.pos_embed": F.pad(positions, (0, 0, 1, 0))[None]}


def densecl_head_and_correspondence(case: Case) -> dict[str, Any]:
    tau, share = case.hyper["T"], case.hyper["loss_lambda"]
    queue, queue2 = (case.inputs[name].T.clone() for name in ("queue", "queue2"))

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        cells = {name: inputs[name].flatten(2).mT for name in ("qb", "kb", "q_grid", "k_grid")}
        idx = densecl_match(cells["qb"], cells["kb"])
        logits, labels = moco_logits(inputs["q"], inputs["k"], queue.to(inputs["q"].dtype), tau)
        single = (1 - share) * F.cross_entropy(logits, labels)
        negatives = queue2.to(inputs["q"].dtype)
        dense = share * dense_info_nce(cells["q_grid"], cells["k_grid"], idx, negatives, tau)
        after = {}
        for name, keys, kept in (("queue_after", "k", queue), ("queue2_after", "k2", queue2)):
            kept = kept.to(inputs[keys].dtype).clone()
            queue_enqueue(kept, 0, inputs[keys])
            after[name] = kept.T
        losses = {"loss": single + dense, "loss_contra_single": single, "loss_contra_dense": dense}
        return losses | {"correspondence": idx} | after

    return in_each_precision(case, outputs)


def densecl_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    images = case.inputs["img"]
    config = DenseCL.Config(
        hidden=hyper["hid"],
        dim=hyper["dim"],
        queue=hyper["K"],
        tau=hyper["T"],
        m=hyper["m"],
        dense=hyper["loss_lambda"],
        grid=(images.shape[-1] - 1) // 2 + 1,  # the whole map of a stride of 2
        augment=Augment(hyper["img"]),
    )
    model = DenseCL(config, Stub(hyper["width"]))
    model.load_state_dict(readers.densecl(case.state, model))
    model.after_step(0, 1)  # before the forward pass, as there
    out = model(list(images.unbind(1)))
    out["loss"].backward()
    losses = {"loss": out["loss"], "loss_contra_single": out["global"], "loss_contra_dense": out["dense"]}
    results = {f"out.{name}": value for name, value in losses.items()}
    gradients = _gradients(case, "grad_param.", readers.densecl, model)
    return results | gradients | _state_after(case, readers.densecl, model)


def _gradients(case: Case, prefix: str, reader: Any, model: nn.Module) -> dict[str, Any]:
    """Our gradients under the official names."""
    named = dict(model.named_parameters())
    names = [key.removeprefix(prefix) for key in case.expected if key.startswith(prefix)]
    ours = {name: next(iter(reader({name: torch.zeros(1)}, model))) for name in names}
    return {prefix + name: named[ours[name]].grad for name in names}


def _state_after(case: Case, reader: Any, model: nn.Module) -> dict[str, Any]:
    """Our state under the official names, as functions, since the reader turns a queue round."""
    state = model.state_dict()

    def same(name: str, official: Tensor) -> None:
        ((key, value),) = reader({name: official}, model).items()
        torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5)

    def compare(name: str) -> Any:
        return lambda official: same(name, official)

    listed = [key for key in case.expected if key.startswith("state_after/")]
    # DenseCL's file holds the query backbone twice; the reader leaves the second one out.
    return {
        key: compare(name) if reader({name: torch.zeros(1, 1)}, model) else lambda official: None
        for key in listed
        for name in [key.removeprefix("state_after/")]
    }


ADAPTERS: dict[str, Adapter] = {
    "moco_infonce_queue": moco_infonce_queue,
    "moco_full_module": moco_full_module,
    "mocov3_contrastive_loss": mocov3_contrastive_loss,
    "mocov3_full_module": mocov3_full_module,
    "mocov3_schedules": mocov3_schedules,
    "mocov3_sincos_pos_embed": mocov3_sincos_pos_embed,
    "densecl_head_and_correspondence": densecl_head_and_correspondence,
    "densecl_full_module": densecl_full_module,
}
