"""Barlow Twins, SwAV, DeepCluster, DINO, iBOT, DINOv2 and DeiT: what each step of their algorithm boxes does, settings
that are refused, half precision."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslcourse import methods
from sslcourse.data.augment import Augment
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate import extract_features, knn_accuracy
from sslcourse.losses.dino import update_center
from sslcourse.train import fit, load_model, read_log
from sslcourse.train.monitor import collapse_warning

NEW = ("barlow_twins", "swav", "deepcluster", "deepcluster_v2", "dino", "ibot", "dinov2", "deit")
MULTICROP = ("swav", "deepcluster_v2", "dino", "ibot", "dinov2")


def small(name: str, *, steps: int = 40, side: int = 16, lr: float = 5e-3, batch: int = 32, **changes: Any) -> Any:
    """The CPU preset at 16 px and for a few steps."""
    config = methods.get(name).PRESETS["cpu"]
    train = replace(config.train, steps=steps, batch_size=batch, lr=lr, warmup_epochs=0.5, monitor_every=steps)
    view = Augment(side, scale=(0.5, 1.0), blur=0.0)
    if name in MULTICROP:
        changes.setdefault("local", replace(view, size=8))
        changes.setdefault("n_local", 2)
    return replace(config, augment=view, train=train, **changes)


@pytest.fixture(scope="module")
def images() -> Any:
    return Shapes("train", size=16).as_images(640)


def test_dino_keeps_the_teacher_and_takes_no_gradient_there() -> None:
    model = methods.build("dino", small("dino", m=0.5))
    views = model.views(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    model(views, progress=0.0)["loss"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    model.after_backward(0.0)
    assert model.student["head"].last_layer.weight_v.grad is None
    assert model.student["head"].mlp[0].weight.grad is not None
    old = model.backbone.stages[0][0].weight.clone()
    with torch.no_grad():
        model.student["backbone"].stages[0][0].weight.add_(1.0)
    model.after_step(0, 10)
    torch.testing.assert_close(model.backbone.stages[0][0].weight, old + 0.5)


def test_the_centre_of_dino_moves_after_it_is_used() -> None:
    model = methods.build("dino", small("dino", centering="mean", prototypes=256))
    t = torch.randn(6, 256, generator=torch.Generator().manual_seed(0))
    first, second = model.targets(t, 0.04), model.targets(t, 0.04)
    torch.testing.assert_close(first, (t / 0.04).softmax(1))
    torch.testing.assert_close(model.targets.center, update_center(update_center(torch.zeros(256), t), t))
    assert not torch.allclose(first, second)
    model.eval()
    before = model.targets.center.clone()
    model.targets(t, 0.04)
    assert torch.equal(model.targets.center, before)


@pytest.mark.parametrize(
    "changes", [{"m": 0.0}, {"centering": "sinkhorn"}, {"n_local": 0}, {"loss": "mse"}, {"predictor": True}]
)
def test_every_arm_of_the_ablation_trains(changes: dict[str, Any]) -> None:
    model = methods.build("dino", small("dino", **changes))
    views = model.views(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    loss = model(views, progress=0.5)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.student.parameters() if p.requires_grad)


def test_the_teacher_sees_whole_images_and_the_student_masked_ones() -> None:
    model = methods.build("ibot", small("ibot", n_local=0, mask=(0.5, 0.0)))
    views = model.views(torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert [tuple(v.shape) for v in views] == [(16, 3, 16, 16)] * 2 + [(16, 4)] * 2
    model.eval()
    seen: list[Any] = []
    for part in (model.student, model.teacher):
        original = part["backbone"].forward_features
        part["backbone"].forward_features = lambda x, mask=None, call=original: seen.append(mask) or call(x, mask)
    model(views, progress=1.0)
    assert [mask is None for mask in seen] == [False, True]


def test_ibot_without_masks_is_dino_of_the_class_tokens() -> None:
    config = small("ibot", n_local=0, mask=(0.0, 0.0))
    model = methods.build("ibot", config).eval()
    views = model.views(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    out = model(views, progress=1.0)
    student = [model.student["head"](model.student["backbone"](v)) for v in views[:2]]
    teacher = torch.cat([model.teacher["head"](model.backbone(v)) for v in views[:2]])
    torch.testing.assert_close(out["loss"], model.class_loss(student, teacher, 1.0))


def test_a_high_resolution_phase_starts_from_the_positions_of_the_small_one() -> None:
    low = methods.build("dinov2", small("dinov2"))
    high_config = replace(small("dinov2"), positions=16, augment=Augment(32, blur=0.0))
    high = methods.build("dinov2", high_config)
    high.load_state_dict(low.state_dict())
    views = high.views(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert views[-1].shape == (8, 16)
    assert high(views, progress=1.0)["loss"].isfinite()


def test_queue_and_prototypes_of_swav() -> None:
    model = methods.build("swav", small("swav", queue=64, queue_from=0.5, freeze=0.2, n_local=0))
    views = model.views(torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    early, late = (float(model.eval()(views, progress=p)["loss"].detach()) for p in (0.0, 0.9))
    assert early != late  # the queue takes part in the codes
    out = model.train()(views, progress=0.0)
    torch.testing.assert_close(model.queues[0].keys[:32], out["embedding"].detach())
    out["loss"].backward()
    model.after_backward(0.1)
    assert model.prototypes.weight.grad is None
    with torch.no_grad():
        model.prototypes.weight.mul_(3)
    model.after_step(0, 10)
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(64))


def test_deepcluster_draws_clusters_equally_often_and_forgets_its_classifier(images: Any) -> None:
    model = methods.build("deepcluster", small("deepcluster", clusters=8))
    data = model.epoch_data(images, 0)
    assert len(data) == len(images)
    counts = data.labels.bincount(minlength=8)
    assert counts.min() >= 0.8 * len(images) / 8
    weight = model.classifier.weight.detach().clone()
    again = model.epoch_data(images, 0)  # the same epoch, after a resume: nothing is clustered anew
    assert torch.equal(again.labels, data.labels)
    assert torch.equal(model.classifier.weight, weight)
    model.epoch_data(images, 1)
    assert not torch.equal(model.classifier.weight, weight)


def test_edges_see_no_colour() -> None:
    model = methods.build("deepcluster", small("deepcluster")).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x), model.backbone(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_deepcluster_v2_remembers_embeddings_and_predicts_its_centroids(images: Any) -> None:
    model = methods.build("deepcluster_v2", small("deepcluster_v2", n_local=0, prototypes=(8, 5)))
    model.epoch_data(images, 0)
    assert [len(p.value) for p in model.prototypes] == [8, 5]
    views = model.views(images.images[:16], torch.Generator().manual_seed(0))
    out = model(views, indices=torch.arange(16))
    torch.testing.assert_close(model.memory.value[0, :16], out["embedding"].detach())
    torch.testing.assert_close(model.memory.value[1, :16], out["positive"].detach())


def test_deit_learns_from_a_teacher_that_is_no_part_of_it(images: Any, tmp_path: Path) -> None:
    teacher = small("deit", backbone="convnet", steps=10)
    fit("deit", images, teacher, tmp_path / "teacher", progress=False)
    config = small("deit", steps=10, teacher=str(tmp_path / "teacher"))
    fit("deit", images, config, tmp_path / "student", progress=False)
    student: Any = load_model(tmp_path / "student")
    assert not any("teacher" in key for key in student.state_dict())
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(student.predict(x).sum(1), torch.ones(4))
        expected: Any = load_model(tmp_path / "teacher")
        torch.testing.assert_close(student.teach(x), expected.predict(x).log())
    start = methods.build("deit", config)
    assert not torch.equal(student.distilled.weight, start.distilled.weight)  # the second classifier has learned


def test_mixed_labels_follow_the_pixels() -> None:
    model = methods.build("deit", small("deit"))
    x = torch.arange(4)[:, None, None, None].expand(4, 3, 16, 16).to(torch.uint8) * 60
    for seed in range(4):
        _, share = model.views(x, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(share.sum(1), torch.ones(4))
        assert (share.diagonal() + share.flip(1).diagonal() >= 1 - 1e-6).all()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("swav", {"tau": 0.0}, "tau and eps"),
        ("dino", {"m": 1.5}, "m in"),
        ("dino", {"centering": "middle"}, "centering"),
        ("ibot", {"backbone": "convnet"}, "ViT"),
        ("ibot", {"predictor": True}, "predictor"),
        ("deit", {"backbone": "convnet", "teacher": "run"}, "ViT"),
        ("deit", {"distill": "warm"}, "distill"),
        ("deepcluster", {"clusters": 1}, "clusters"),
        ("deepcluster_v2", {"prototypes": ()}, "prototypes"),
        ("barlow_twins", {"scale": 0.0}, "scale"),
    ],
)
def test_wrong_settings_are_named(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods.build(name, small(name, **changes))


def test_a_stream_cannot_be_clustered() -> None:
    for name in ("deepcluster", "deepcluster_v2"):
        with pytest.raises(InputError, match="fit into memory"):
            methods.build(name, small(name)).epoch_data(object(), 0)


def test_monitor_values_are_logged(images: Any, tmp_path: Path) -> None:
    fit("dino", images, small("dino", steps=5), tmp_path, progress=False)
    last = read_log(tmp_path)[-1]
    assert last["feature_std"] > 0.05
    assert collapse_warning(last) is None
    model: Any = load_model(tmp_path)
    features = extract_features(model.backbone, images, size=16)
    assert 0 < knn_accuracy(features[:320], images.labels[:320], features[320:], images.labels[320:]).value < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*NEW, "byol", "simsiam"])
def test_half_precision_gives_finite_losses_and_gradients(name: str, dtype: torch.dtype, images: Any) -> None:
    # KoLeo has the logarithm of distances that are rounding errors in a network without training.
    config = small(name, **({"koleo": 0.0} if name == "dinov2" else {}))
    module = methods.build(name, config)
    data = module.epoch_data(images, 0) if hasattr(module, "epoch_data") else images
    views = module.views(data.images[:16], torch.Generator().manual_seed(0))
    known = {"labels": data.labels[:16], "indices": torch.arange(16), "progress": 0.5}
    shown = {key: known[key] for key in getattr(module, "uses", ())}
    torch.manual_seed(0)  # of stochastic depth
    loss = module(views, **shown)["loss"].detach()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype):
        half = methods.build(name, config)
        if hasattr(half, "epoch_data"):
            half.load_state_dict(module.state_dict())
        out = half(views, **shown)["loss"]
    out.backward()
    assert out.dtype == torch.float32
    assert out.item() == pytest.approx(loss.item(), rel=0.1, abs=0.05)
    assert all(bool(p.grad.isfinite().all()) for p in half.parameters() if p.grad is not None)
