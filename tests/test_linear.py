"""Frozen features and the linear probe: nothing of the test set and nothing of the training leaks either way."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from sslcourse.data.augment import center_view
from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate import extract_features, fit_linear, linear_probe, pixel_features
from sslcourse.evaluate.protocols import evaluate
from sslcourse.nn.convnet import ConvNet


def gaussians(n: int, d: int = 12, n_cls: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping classes on features of very different scales."""
    g = torch.Generator().manual_seed(seed)
    centres = 0.7 * torch.randn(n_cls, d, generator=torch.Generator().manual_seed(99))
    y = torch.randint(n_cls, (n,), generator=g)
    return (centres[y] + torch.randn(n, d, generator=g)) * torch.logspace(-2, 3, d) + 5, y


def pictures(n: int, size: int = 16, seed: int = 0) -> Images:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
    return Images(images, torch.arange(n) % 3, name="noise")


# --- the probe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_lbfgs_solves_what_scikit_learn_solves(l2: float) -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = gaussians(400)
    probe = fit_linear(x, y, sweep=[l2])
    s = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    reference = LogisticRegression(C=1 / (l2 * len(x)), max_iter=2000, tol=1e-9).fit(s, y.numpy())
    expected = torch.from_numpy(reference.predict_proba(s)).float()
    torch.testing.assert_close(probe(x).softmax(dim=1), expected, atol=2e-3, rtol=0)


def test_sgd_comes_close_to_the_solution() -> None:
    x, y = gaussians(500)
    exact = fit_linear(x, y, sweep=[0.0])
    sgd = fit_linear(x, y, solver="sgd", epochs=400, sweep=[0.3])
    loss = [nn.functional.cross_entropy(probe(x), y).item() for probe in (exact, sgd)]
    assert loss[0] <= loss[1] + 1e-4
    assert loss[1] <= loss[0] + 0.01


def test_heads_swept_together_are_the_heads_trained_alone() -> None:
    x, y = gaussians(100)
    probes = [fit_linear(x, y, solver="sgd", sweep=[lr], epochs=5) for lr in (0.01, 0.1)]
    swept = fit_linear(x, y, solver="sgd", sweep=[0.01, 0.1], epochs=5)
    chosen = probes[[0.01, 0.1].index(swept.detail["lr"])]
    torch.testing.assert_close(swept.weight, chosen.weight)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_the_sweep_avoids_what_does_not_work(solver: str) -> None:
    x, y = gaussians(300)
    # Everything regularised away; diverged to NaN, or not learned at all.
    useless = [1e3] if solver == "lbfgs" else [3e38, 0.0]
    good = 1e-2
    probe = fit_linear(x, y, solver=solver, sweep=[*useless, good], epochs=20)
    assert probe.detail["l2" if solver == "lbfgs" else "lr"] == good
    assert probe.detail["validation_accuracy"] > 0.5
    assert probe.weight.isfinite().all()


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_test_data_cannot_change_the_probe(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslcourse.evaluate import linear

    fitted = []
    original = linear.fit_linear
    monkeypatch.setattr(linear, "fit_linear", lambda *a, **k: fitted.append(original(*a, **k)) or fitted[-1])
    x, y = gaussians(120)
    test_x, test_y = gaussians(60, seed=1)
    for scale, shift in ((1.0, 0), (1000.0, 1)):
        linear.linear_probe(x, y, test_x * scale, (test_y + shift) % 4, solver=solver, epochs=3)
    a, b = fitted
    for name in ("mean", "std", "weight", "bias"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.detail == b.detail
    torch.testing.assert_close(a.mean, x.mean(0))
    torch.testing.assert_close(a.std, x.std(0, correction=0))


def test_the_validation_images_do_not_reach_the_swept_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    from sslcourse.evaluate import linear

    sizes = []
    original = linear._lbfgs
    monkeypatch.setattr(linear, "_lbfgs", lambda x, y, *a: sizes.append(len(x)) or original(x, y, *a))
    x, y = gaussians(200)
    held_out = linear._validation_split(y, seed=0)
    linear.fit_linear(x, y, sweep=[1e-2, 1e-1])
    assert sizes == [200 - int(held_out.sum()), 200]
    for c in range(4):  # a fifth of every class
        assert int(held_out[y == c].sum()) == int(0.2 * int((y == c).sum()))


def test_the_same_seed_gives_the_same_probe_and_the_global_generator_stays() -> None:
    x, y = gaussians(100)
    state = torch.get_rng_state()
    a, b = (fit_linear(x, y, solver="sgd", epochs=3, seed=1) for _ in range(2))
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(a.weight, fit_linear(x, y, solver="sgd", epochs=3, seed=2).weight)


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    x, y = gaussians(200)
    test_x, test_y = gaussians(100, seed=1)
    plain = linear_probe(x, y, test_x, test_y)
    scaled = linear_probe(x * 100 - 7, y, test_x * 100 - 7, test_y)
    assert scaled.value == pytest.approx(plain.value, abs=0.011)


def test_constant_features_one_class_rare_classes_and_gradients() -> None:
    x, y = gaussians(60)
    x[:, 3] = 5.0
    assert fit_linear(x, y)(x).isfinite().all()
    one = torch.zeros(60, dtype=torch.long)
    assert linear_probe(x, one, x, one).value == 1.0
    # A class of one image stays in training; a class that training lacks is always wrong.
    rare = y.clone()
    rare[0] = 4
    assert fit_linear(x, rare)(x).shape == (60, 5)
    assert linear_probe(x, y, x, torch.full_like(y, 9)).value == 0.0
    with torch.no_grad():  # the caller's mode is no matter of ours
        probe = fit_linear(x.clone().requires_grad_(), y)
    assert not probe.weight.requires_grad


def test_two_images_need_no_sweep() -> None:
    probe = fit_linear(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]))
    assert probe.detail["validation_accuracy"] is None
    assert probe(torch.tensor([[0.0], [1.0]])).argmax(1).tolist() == [0, 1]


BAD = {
    "labels": (lambda x, y: fit_linear(x, y[:5]), "one integer label each"),
    "uint8": (lambda x, y: fit_linear(x.byte(), y), "float features"),
    "empty": (lambda x, y: fit_linear(x[:0], y[:0]), "one integer label each"),
    "unlabelled": (lambda x, y: fit_linear(x, y - 1), r"found -1 \.\. 2"),
    "n_cls": (lambda x, y: fit_linear(x, y, n_cls=2), r"0 \.\. 1; found"),
    "NaN": (lambda x, y: fit_linear(x / 0, y), "did the training diverge"),
    "NaN in test": (lambda x, y: linear_probe(x, y, x / 0, y), "finite test features"),
    "solver": (lambda x, y: fit_linear(x, y, solver="lbgfs"), "did you mean 'lbfgs'"),
    "sweep": (lambda x, y: fit_linear(x, y, sweep=[]), "one value or more"),
    "negative sweep": (lambda x, y: fit_linear(x, y, sweep=[-1.0]), "none below 0"),
    "test width": (lambda x, y: linear_probe(x, y, x[:, :2], y), "of the width"),
    "no test": (lambda x, y: linear_probe(x, y, x[:0], y[:0]), "one label each"),
    "protocol": (lambda x, y: evaluate((x, x), (y, y), ["knnn"], representation="x"), "did you mean 'knn'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case: str) -> None:
    call, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence) as error:
        call(*gaussians(40))
    assert "\n" not in str(error.value)


def test_protocols_report_what_they_did() -> None:
    x, y = gaussians(200)
    test_x, test_y = gaussians(100, seed=1)
    options = {"knn": {"k": 3}, "linear": {"solver": "sgd", "epochs": 2}}
    results = evaluate((x, test_x), (y, test_y), ("knn", "linear"), representation="raw", options=options)
    assert [r.name for r in results] == ["knn, raw", "linear, raw"]
    assert results[0].detail["k"] == 3
    assert results[1].detail["epochs"] == 2
    for r in results:
        assert r.low < r.value < r.high
        assert (r.n, r.detail["representation"]) == (100, "raw")


# --- features ----------------------------------------------------------------------------------------------------


def backbone_after_training() -> ConvNet:
    """A network whose batch-norm statistics are not those of its start."""
    net = ConvNet((4, 8), (2, 2))
    with torch.no_grad():
        net.train()(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 3 + 1)
    return net


def test_extraction_changes_no_parameter_no_buffer_and_no_mode() -> None:
    net = backbone_after_training()
    net.stages[0].eval()  # part of it frozen: that stays so
    modes = [m.training for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    features = extract_features(net, pictures(10), batch_size=4)
    assert not features.requires_grad
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_features_are_those_of_eval_mode_in_order_whatever_the_batch() -> None:
    net, data = backbone_after_training(), pictures(11)
    with torch.no_grad():
        expected = copy.deepcopy(net).eval()(center_view(data.images, 16))
    for batch_size in (1, 4, 11, 100):
        torch.testing.assert_close(extract_features(net, data, batch_size=batch_size), expected)
    torch.testing.assert_close(extract_features(net, data.images), expected)


def test_the_mode_comes_back_after_an_error() -> None:
    net = backbone_after_training()
    with pytest.raises(RuntimeError):
        extract_features(nn.Sequential(net, nn.Linear(3, 3)), pictures(2))
    assert net.training


def test_features_can_be_trained_on() -> None:
    features = extract_features(backbone_after_training(), pictures(6))
    assert not features.is_inference()
    nn.Linear(8, 2)(features).sum().backward()


def test_size_and_standardisation() -> None:
    data = pictures(3, size=20)
    raw = extract_features(nn.Flatten(), data, size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    expected = center_view(data.images, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).flatten(1)
    torch.testing.assert_close(raw, expected)


def test_a_backbone_that_does_not_pool_and_no_images() -> None:
    with pytest.raises(InputError, match=r"features \(B, D\); Conv2d returned \(2, 4, 14, 14\)"):
        extract_features(nn.Conv2d(3, 4, 3), pictures(2))
    with pytest.raises(InputError, match="no images"):
        extract_features(backbone_after_training(), pictures(0))


def test_pixels_are_centred_by_the_training_set_only() -> None:
    train, test = pictures(20), pictures(5, seed=1)
    bank, queries = pixel_features(train, test)
    mean = (train.images.flatten(1).double() / 255).mean(0)
    torch.testing.assert_close(bank.double(), train.images.flatten(1) / 255 - mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(queries.double(), test.images.flatten(1) / 255 - mean, atol=1e-6, rtol=0)
    assert math.isclose(bank.mean().item(), 0, abs_tol=1e-6)
    assert pixel_features(train, test, size=8)[0].shape == (20, 3 * 8 * 8)
