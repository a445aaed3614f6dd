"""LARS, EMA, schedules and parameter groups, against plain arithmetic."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.train.optim import (
    LARS,
    cosine_ema_schedule,
    ema_update,
    param_groups,
    scaled_lr,
    warmup_cosine,
)
from sslcourse.train.optim import _adapted as adapted_by_foreach


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestLARS:
    SETTINGS = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01, "trust_coefficient": 0.02}  # noqa: RUF012

    def slow(
        self, p: Tensor, grads: list[Tensor], adapt: bool, lr, momentum, weight_decay, trust_coefficient
    ) -> Tensor:
        p, velocity = p.double(), torch.zeros_like(p, dtype=torch.float64)
        for grad in grads:
            g = grad.double()
            if adapt:
                g = g + weight_decay * p
                scalable = p.norm() > 0 and g.norm() > 0
                g = g * (trust_coefficient * p.norm() / g.norm() if scalable else 1)
            velocity = momentum * velocity + g
            p = p - lr * velocity
        return p

    def run(self, start: Tensor, grads: list[Tensor], exclude: bool | None = None, **settings: float) -> Tensor:
        p = nn.Parameter(start.clone())
        optimizer = LARS([p], exclude=exclude, **settings)
        for grad in grads:
            p.grad = grad.clone()
            optimizer.step()
            assert p.grad.equal(grad)  # left as it is
        return p.detach()

    @pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2), (5,), ()])
    @pytest.mark.parametrize("exclude", [None, True, False])
    @pytest.mark.parametrize("decay", [0.0, 0.01])
    def test_equals_the_formula(self, shape: tuple[int, ...], exclude: bool | None, decay: float) -> None:
        start, grads = randn(*shape), [randn(*shape, seed=s) for s in (1, 2, 3)]
        settings = self.SETTINGS | {"weight_decay": decay}
        adapt = len(shape) > 1 if exclude is None else not exclude
        expected = self.slow(start, grads, adapt, **settings)
        torch.testing.assert_close(self.run(start, grads, exclude, **settings).double(), expected, rtol=1e-5, atol=1e-6)

    def test_a_weight_or_a_gradient_of_zero_is_not_scaled(self) -> None:
        settings = self.SETTINGS | {"weight_decay": 0.0}
        moved = self.run(torch.zeros(2, 2), [torch.ones(2, 2)], **settings)
        torch.testing.assert_close(moved, torch.full((2, 2), -0.3))
        assert self.run(torch.ones(2, 2), [torch.zeros(2, 2)], **settings).equal(torch.ones(2, 2))

    @pytest.mark.parametrize("share", [1e-2, 1e-4, 0.0])
    def test_a_gradient_that_cancels_the_decay(self, share: float) -> None:
        """|g + decay p| is then small against its terms, and an expansion of its square would be rounding error."""
        start = randn(30, 40)
        grad = -0.01 * start + share * 0.01 * randn(30, 40, seed=1)
        left = grad + 0.01 * start
        if share == 0:
            assert self.run(start, [grad], **self.SETTINGS).isfinite().all()
            return
        ratio = 0.02 * start.norm() / left.norm()
        moved = start - 0.3 * ratio * left
        torch.testing.assert_close(self.run(start, [grad], **self.SETTINGS), moved, rtol=2e-2 * share**0.25, atol=1e-4)

    def test_channels_last_weights(self) -> None:
        start, grad = randn(4, 3, 5, 5), randn(4, 3, 5, 5, seed=1)
        expected = self.run(start, [grad], **self.SETTINGS)
        p = nn.Parameter(start.to(memory_format=torch.channels_last))
        p.grad = grad.to(memory_format=torch.channels_last)
        LARS([p], **self.SETTINGS).step()
        torch.testing.assert_close(p.detach(), expected)

    def test_the_form_for_accelerators_is_the_same(self) -> None:
        params = [randn(4, 3), torch.zeros(2, 2), randn(2, 3, 2, 2)]
        grads = [randn(*p.shape, seed=7) for p in params[:2]] + [torch.zeros(2, 3, 2, 2)]
        group = self.SETTINGS
        for p, g, ours in zip(params, grads, adapted_by_foreach(params, grads, group), strict=True):
            moved = self.run(p, [g], **group)
            torch.testing.assert_close(p - group["lr"] * ours, moved, rtol=1e-5, atol=1e-6)

    def test_its_state_survives_a_checkpoint(self, tmp_path) -> None:
        grads = [randn(4, 3, seed=s) for s in range(4)]
        straight = self.run(randn(4, 3), grads, **self.SETTINGS)
        p = nn.Parameter(randn(4, 3))
        optimizer = LARS([p], **self.SETTINGS)
        for step, grad in enumerate(grads):
            if step == 2:
                torch.save(optimizer.state_dict(), tmp_path / "state.pt")
                optimizer = LARS([p], lr=99.0)
                optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
            p.grad = grad
            optimizer.step()
        assert p.detach().equal(straight)

    def test_closure_and_parameters_without_gradient(self) -> None:
        p, idle = nn.Parameter(randn(3, 3)), nn.Parameter(randn(3, 3))
        optimizer = LARS([p, idle], lr=1.0, trust_coefficient=0.1)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = p.square().sum()
            loss.backward()
            return loss

        before, idle_before = optimizer.step(closure), idle.detach().clone()
        assert p.square().sum() < before
        assert idle.equal(idle_before)
        assert idle not in optimizer.state

    @pytest.mark.parametrize("bad", [{"lr": -1}, {"momentum": 1.0}, {"weight_decay": -1}, {"trust_coefficient": 0}])
    def test_bad_settings(self, bad: dict[str, float]) -> None:
        with pytest.raises(InputError, match="LARS"):
            LARS([nn.Parameter(torch.ones(2))], **(self.SETTINGS | bad))


class TestParamGroups:
    def test_biases_and_norms_are_not_decayed(self) -> None:
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
        module[2].weight.requires_grad = False
        decayed, rest = param_groups(module, 0.1)
        assert decayed["params"] == [module[0].weight]
        assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
        assert {id(p) for p in rest["params"]} == {
            id(p) for p in (module[0].bias, *module[1].parameters(), module[2].bias)
        }

    def test_by_name(self) -> None:
        module = nn.Linear(3, 2)
        (group,) = param_groups(module, 0.1, exclude=lambda name, p: "weight" in name or p.ndim <= 1)
        assert group["exclude"] is True
        assert group["params"] == [module.weight, module.bias]

    def test_they_serve_every_optimiser(self) -> None:
        for optimizer in (LARS, torch.optim.SGD, torch.optim.AdamW):
            groups = optimizer(param_groups(nn.Linear(3, 2), 0.1), lr=0.1).param_groups
            assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


class TestEMA:
    def modules(self) -> tuple[nn.Module, nn.Module]:
        online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        target = copy.deepcopy(online)
        with torch.no_grad():
            for i, t in enumerate(online.state_dict().values()):
                t.copy_(randn(*t.shape, seed=i) * 10)
        return online, target

    @pytest.mark.parametrize("m", [0.0, 0.3, 0.99, 1.0])
    def test_parameters(self, m: float) -> None:
        online, target = self.modules()
        before = [p.detach().clone() for p in target.parameters()]
        objects = list(target.parameters())
        ema_update(online, target, m)
        for p, o, b in zip(objects, online.parameters(), before, strict=True):
            torch.testing.assert_close(p.detach(), m * b + (1 - m) * o.detach())
        assert all(p is q for p, q in zip(objects, target.parameters(), strict=True))  # in place
        if m in (0.0, 1.0):
            exact = before if m else [o.detach() for o in online.parameters()]
            assert all(p.equal(e) for p, e in zip(objects, exact, strict=True))

    def test_buffers(self) -> None:
        results = {}
        for buffers in ("copy", "average", "keep"):
            online, target = self.modules()
            old, new = target[1].running_mean.clone(), online[1].running_mean
            count = int(target[1].num_batches_tracked)
            ema_update(online, target, 0.9, buffers)
            results[buffers] = target[1].running_mean
            expected = {"copy": new, "average": 0.9 * old + 0.1 * new, "keep": old}[buffers]
            torch.testing.assert_close(target[1].running_mean, expected)
            counted = count if buffers == "keep" else int(online[1].num_batches_tracked)
            assert target[1].num_batches_tracked == counted
        assert not results["copy"].equal(results["average"])

    def test_tensors_in_order(self) -> None:
        online, target = [randn(3), randn(2, 2)], [torch.zeros(3), torch.zeros(2, 2)]
        ema_update(iter(online), iter(target), 0.75)
        for o, t in zip(online, target, strict=True):
            torch.testing.assert_close(t, 0.25 * o)

    def test_modules_are_matched_by_name(self) -> None:
        class Pair(nn.Module):
            def __init__(self, first: str, second: str) -> None:
                super().__init__()
                for name in (first, second):
                    setattr(self, name, nn.Linear(2, 2, bias=False))

        online, target = Pair("a", "b"), Pair("b", "a")
        ema_update(online, target, 0.0)
        assert target.a.weight.equal(online.a.weight)
        assert target.b.weight.equal(online.b.weight)

    def test_a_target_of_higher_precision(self) -> None:
        online, target = nn.Linear(2, 2).to(torch.bfloat16), nn.Linear(2, 2)
        before = target.weight.detach().clone()
        ema_update(online, target, 0.5)
        torch.testing.assert_close(target.weight.detach(), (before + online.weight.float()).detach() / 2)

    def test_no_graph_grows(self) -> None:
        online, target = self.modules()
        ema_update(online, target, 0.5)
        assert all(p.grad_fn is None for p in target.parameters())

    @pytest.mark.parametrize(
        ("online", "target", "m", "message"),
        [
            (nn.Linear(2, 2), nn.Linear(2, 2), 1.5, "between 0 and 1"),
            (nn.Linear(2, 2), nn.Linear(2, 3), 0.5, "weight"),
            (nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5, "bias"),
            (nn.Linear(2, 2), [torch.ones(2)], 0.5, "not one of each"),
            ([torch.ones(2)], [torch.ones(2), torch.ones(2)], 0.5, "'1'"),
        ],
    )
    def test_bad_input(self, online, target, m: float, message: str) -> None:
        with pytest.raises(InputError, match=message):
            ema_update(online, target, m)

    def test_unknown_way_to_treat_buffers(self) -> None:
        with pytest.raises(InputError, match="did you mean 'copy'"):
            ema_update(nn.Linear(2, 2), nn.Linear(2, 2), 0.5, "copied")  # type: ignore[arg-type]


class TestSchedules:
    def test_warmup_cosine_at_its_corners(self) -> None:
        at = [warmup_cosine(step, 100, 10, 2.0, 0.5) for step in (0, 5, 10, 55, 100, 1000)]
        assert at == pytest.approx([0.0, 1.0, 2.0, 1.25, 0.5, 0.5])
        assert at[2] == 2.0
        assert at[4] == 0.5

    def test_warmup_cosine_rises_then_falls(self) -> None:
        values = [warmup_cosine(step, 60, 12, 1.0) for step in range(61)]
        assert values[:13] == sorted(values[:13])
        assert values[12:] == sorted(values[12:], reverse=True)

    def test_without_warmup_and_with_nothing_else(self) -> None:
        assert warmup_cosine(0, 10, 0, 1.0) == 1.0
        assert warmup_cosine(5, 10, 10, 1.0) == 0.5
        assert warmup_cosine(10, 10, 10, 1.0) == 0.0

    @pytest.mark.parametrize("arguments", [(0, 0, 0, 1.0), (0, 10, 11, 1.0), (0, 10, -1, 1.0)])
    def test_impossible_schedules(self, arguments: tuple) -> None:
        with pytest.raises(InputError, match="warmup_cosine"):
            warmup_cosine(*arguments)

    def test_ema_schedule(self) -> None:
        values = [cosine_ema_schedule(step, 40, 0.99) for step in range(50)]
        assert values[0] == pytest.approx(0.99)
        assert values[20] == pytest.approx(0.995)
        assert values[40:] == [1.0] * 10
        assert values == sorted(values)
        with pytest.raises(InputError, match="cosine_ema_schedule"):
            cosine_ema_schedule(0, 0, 0.99)

    def test_scaled_lr(self) -> None:
        assert scaled_lr(0.3, 4096) == pytest.approx(4.8)
        assert scaled_lr(0.075, 4096, "sqrt") == pytest.approx(0.075 * math.sqrt(4096))
        with pytest.raises(InputError, match="did you mean 'linear'"):
            scaled_lr(0.3, 256, "linaer")  # type: ignore[arg-type]
