"""Every method of the catalogue on a GPU: it trains in bf16, agrees with the CPU, and resumes across devices.

The tests run on the CPU, too, so that they cannot rot where there is no GPU. `make test-gpu` runs the GPU half on a
machine with torch, torchvision, timm, lightning, numpy and pytest.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from sslcourse import catalogue, methods
from sslcourse.data.images import Images
from sslcourse.data.rng import step_generator
from sslcourse.train import fit, load_model, read_log

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
DEVICE = pytest.mark.parametrize("device", ["cpu", GPU])
METHOD = pytest.mark.parametrize("name", catalogue.available())

# Largest difference between CPU and GPU in fp32 without TF32, relative to the loss and to the norm of the gradient:
# sums in another order, through batch norm over few images.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-2


def data(n: int = 64) -> Images:
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 8, 8, generator=g)  # smooth images: noise would all look the same after augmentation
    smooth = torch.nn.functional.interpolate(coarse, size=(40, 40), mode="bilinear")
    return Images(
        (smooth * 255).to(torch.uint8), torch.arange(n) % 4, list("abcd"), "noise", [[f"picture {i}"] for i in range(n)]
    )


def small(name: str, **train: object):
    """The first preset of a method (the one for a CPU), cut down to a few steps of a few images."""
    config = next(iter(methods.get(name).PRESETS.values()))
    settings = {"steps": 3, "batch_size": 32, "warmup_epochs": 0.0, "log_every": 1, "monitor_every": 3}
    return replace(config, train=replace(config.train, **(settings | train)))


@METHOD
@pytest.mark.parametrize(
    ("device", "compiled"),
    [
        ("cpu", False),
        pytest.param("cpu", True, marks=pytest.mark.slow),
        pytest.param("cuda", False, marks=[pytest.mark.gpu, NO_GPU]),
        pytest.param("cuda", True, marks=[pytest.mark.gpu, NO_GPU]),
    ],
)
def test_three_steps_in_bf16(name, device, compiled, tmp_path, capsys):
    config = small(name, accelerator=device, precision="bf16-mixed", compile=compiled)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    module = methods.build(name, config)
    out = fit(module, data(), config, tmp_path / "run", progress=False)
    assert out["step"] == 3
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    assert load_model(tmp_path / "run").backbone.num_features == module.backbone.num_features
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
        with capsys.disabled():
            print(f"\n{name} bf16 compile={compiled}: loss {out['loss']:.4f}, peak memory {peak:,.0f} MiB")


def loss_and_gradient(module, views) -> tuple[torch.Tensor, torch.Tensor]:
    module.zero_grad()
    torch.manual_seed(0)  # as the loop does before every step, for what a method draws in its forward pass
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        known = {"labels": data(len(views[0])).labels, "indices": torch.arange(len(views[0])), "progress": 0.5}
        shown = {name: known[name] for name in getattr(module, "uses", ())}
        shown = {name: v.to(views[0].device) if isinstance(v, torch.Tensor) else v for name, v in shown.items()}
        loss = module.train()(views, **shown)["loss"]
        loss.backward()
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return loss.detach().cpu(), torch.cat(gradients).cpu()


@METHOD
@DEVICE
def test_devices_agree_in_fp32(name, device):
    module = methods.build(name, small(name))
    images = data(32).images
    if hasattr(module, "prepare"):
        module.prepare(data(32))
    if hasattr(module, "epoch_data"):  # clusters, found before the first epoch
        module.epoch_data(data(32), 0)
    results = []
    for where in ("cpu", device):
        moved = deepcopy(module).to(where)
        views = moved.views(images.to(where), step_generator(0, 0))
        results.append(([v.cpu() for v in views], *loss_and_gradient(moved, views)))
    (views, loss, gradient), (other_views, other_loss, other_gradient) = results
    for view, other in zip(views, other_views, strict=True):
        torch.testing.assert_close(other, view, rtol=0, atol=2e-2)  # a grey level of 255 is 0.017 after standardisation
    torch.testing.assert_close(other_loss, loss, rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE)
    assert (other_gradient - gradient).norm() <= GRADIENT_TOLERANCE * gradient.norm()


@METHOD
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("cpu", "cpu"),
        pytest.param("cpu", "cuda", marks=[pytest.mark.gpu, NO_GPU]),
        pytest.param("cuda", "cpu", marks=[pytest.mark.gpu, NO_GPU]),
    ],
)
def test_a_run_continues_on_another_device(name, first, then, tmp_path):
    class Stops(methods.get(name)):
        def after_step(self, step, total_steps):
            if hasattr(super(), "after_step"):
                super().after_step(step, total_steps)
            if step == 2:
                raise KeyboardInterrupt

    settings = {"steps": 4, "checkpoint_every": 2, "precision": "32-true"}
    config = small(name, accelerator=first, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(methods.build(Stops, config), data(), config, tmp_path / "run", progress=False)
    config = small(name, accelerator=then, **settings)
    fit(name, data(), config, tmp_path / "run", resume=True, progress=False)
    fit(name, data(), config, tmp_path / "whole", progress=False)
    parts, whole = ([line["loss"] for line in read_log(tmp_path / path)] for path in ("run", "whole"))
    # TF32 and the order of sums differ between devices; a lost momentum or step would show at once.
    assert parts == pytest.approx(whole, rel=0 if first == then == "cpu" else 2e-2)
