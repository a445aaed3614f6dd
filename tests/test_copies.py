"""Copy detection, the leakage guard, the feature cache and the diagnostics."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sslcourse.data.edits import _CORNERS, EDITS, _warp, copy_queries, edit
from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate.baselines import HOG, hog_encoder, pixel_encoder, pixel_features
from sslcourse.evaluate.cache import cached_features, content_key
from sslcourse.evaluate.copies import copy_detection
from sslcourse.evaluate.diagnostics import diagnose, linear_cka, similarity_histogram
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.leakage import LeakageWarning, overlap, warn_of_leakage
from sslcourse.nn.convnet import ConvNet


def photos(n: int, seed: int = 0, size: int = 32) -> Images:
    """Smooth random pictures."""
    g = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 5, 5, generator=g)
    big = nn.functional.interpolate(small, (size, size), mode="bicubic").clamp(0, 1)
    return Images((big * 255).to(torch.uint8), torch.arange(n) % 3, list("abc"), "photos")


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_edits_change_the_image_repeatably(kind: str, shape: tuple[int, int]) -> None:
    x = photos(3, size=40).images[:, :, : shape[0], : shape[1]].contiguous()
    out = edit(x, kind, torch.Generator().manual_seed(0))
    assert out.shape == x.shape
    assert out.dtype == torch.uint8
    assert (out.float() - x.float()).abs().mean() > 2
    assert torch.equal(out, edit(x, kind, torch.Generator().manual_seed(0)))
    # Every image has its own edit, and one that its neighbours in the batch do not change.
    if kind not in ("compress", "blur_grey"):
        same = x[:1].expand(3, -1, -1, -1).contiguous()
        twins = edit(same, kind, torch.Generator().manual_seed(1))
        assert not torch.equal(twins[0], twins[1])


def test_a_warp_to_the_own_corners_is_the_identity_and_one_to_a_box_is_a_crop() -> None:
    x = photos(2).images.float() / 255
    torch.testing.assert_close(_warp(x, _CORNERS.expand(2, 4, 2)), x, rtol=1e-4, atol=1e-4)
    quarter = torch.tensor([[-1.0, -1.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    enlarged = nn.functional.interpolate(x[:, :, :16, :16], (32, 32), mode="bilinear")
    torch.testing.assert_close(
        _warp(x, quarter.expand(2, 4, 2))[:, :, 2:-2, 2:-2], enlarged[:, :, 2:-2, 2:-2], rtol=1e-3, atol=1e-3
    )


def test_queries_name_their_originals() -> None:
    queries, kinds = copy_queries(photos(10), 4, seed=1)
    assert len(queries) == len(kinds) == 4 * len(EDITS)
    assert queries.labels.unique().numel() == 4
    with pytest.raises(InputError, match="1 to 10"):
        copy_queries(photos(10), 11)
    with pytest.raises(InputError, match="edit"):
        edit(photos(1).images, "croop", torch.Generator())


def test_a_copy_detector_that_sees_through_edits_scores_one() -> None:
    data = photos(20)

    class Colour(nn.Module):
        """Knows the images by heart: the answer, whatever the edit."""

        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", -1) + 1
            table = torch.eye(20)
            return table if len(x) == 20 else table[copy_queries(data, 3)[0].labels]

    perfect = copy_detection(Encoder(Colour()), data, n=3)
    assert perfect.value == perfect.detail["micro_ap"] == 1.0
    pixels = copy_detection(pixel_encoder(data), data, n=20)
    assert 1 / 20 < pixels.value < 1.0
    assert pixels.n == 20
    assert pixels.detail["map_by_edit"]["blur_grey"] > pixels.detail["map_by_edit"]["crop"]
    whitened = copy_detection(pixel_encoder(data), data, n=20, whiten_on=photos(30, 5), dim=8)
    assert whitened.detail["whitened"]
    assert whitened.value != pixels.value


def test_micro_ap_minds_the_threshold_between_queries() -> None:
    # Each query ranks its own original first, but the second one does so with less than another pair of the first.
    from sslcourse.evaluate import mean_average_precision, micro_average_precision

    scores = torch.tensor([[0.9, 0.8], [0.1, 0.3]])
    truth = torch.eye(2, dtype=torch.bool)
    assert mean_average_precision(scores, truth) == 1.0
    assert micro_average_precision(scores, truth).item() == pytest.approx((1 + 2 / 3) / 2)


def test_test_images_in_the_training_set_are_reported() -> None:
    train, test = photos(12), photos(5, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_leakage(train, test) == 0
    leaked = Images(torch.cat([test.images, train.images[3:5]]), torch.zeros(7, dtype=torch.long))
    assert overlap(train, leaked) == [5, 6]
    with pytest.warns(LeakageWarning, match="2 of 7"):
        assert warn_of_leakage(train, leaked) == 2


def test_features_are_computed_once(tmp_path: Path) -> None:
    data, net = photos(6), ConvNet((8,), (2,))
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    encoder = Encoder(net)
    first = cached_features(encoder, data, tmp_path)
    again = cached_features(encoder, data, tmp_path)
    assert torch.equal(first, again)
    assert len(calls) == 1
    assert torch.equal(cached_features(encoder, data, None), first)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])  # a damaged file is computed again
    assert torch.equal(cached_features(encoder, data, tmp_path), first)
    assert [f.suffix for f in tmp_path.iterdir()] == [".safetensors"]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    encoder = Encoder(ConvNet((8,), (2,)))
    assert cached_features(encoder, photos(3), tmp_path / "file").shape == (3, 8)


def test_the_key_is_everything_that_features_depend_on() -> None:
    data, net = photos(4), ConvNet((8,), (2,))
    key = content_key(Encoder(net), data)
    assert content_key(Encoder(net), Images(data.images.clone(), data.labels + 1)) == key  # labels play no part
    pixel = data.images.clone()
    pixel[3, 0, 0, 0] += 1
    others = [
        (Encoder(net), Images(pixel, data.labels)),
        (Encoder(net), data.subset(torch.tensor([1, 0, 2, 3]))),
        (Encoder(net, size=16), data),
        (Encoder(net, std=(1.0, 1.0, 1.0)), data),
        (Encoder(nn.Sequential(net, nn.ReLU())), data),
    ]
    with torch.no_grad():
        net.stages[0][1].running_mean += 1
    keys = {content_key(e, d) for e, d in others}
    assert key not in keys
    assert content_key(Encoder(net), data) != key


def test_cka_is_blind_to_rotation_and_scale_alone() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=g, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ rotation + 5).item() == pytest.approx(1)
    assert linear_cka(x, torch.randn(200, 6, generator=g)).item() < 0.1
    # The definition by Gram matrices: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).
    y = x @ torch.randn(6, 3, generator=g, dtype=torch.float64)
    centre = torch.eye(200, dtype=torch.float64) - 1 / 200
    k, l = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert linear_cka(x, y).item() == pytest.approx(((k * l).sum() / (k.norm() * l.norm())).item())
    with pytest.raises(InputError, match="constant"):
        linear_cka(torch.ones(5, 2), x[:5])


@pytest.mark.parametrize("chunk", [3, 1000])
def test_similarities_are_counted_once_a_pair(chunk: int) -> None:
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(20, 4, generator=g), torch.randint(3, (20,), generator=g)
    found = similarity_histogram(z, labels, bins=10, chunk=chunk)
    pairs = [(i, j) for i in range(20) for j in range(i + 1, 20)]
    cosines = np.array([float(torch.cosine_similarity(z[i], z[j], dim=0)) for i, j in pairs])
    same = np.array([bool(labels[i] == labels[j]) for i, j in pairs])
    for counts, which in ((found.positive, same), (found.negative, ~same)):
        assert counts.tolist() == np.histogram(cosines[which], bins=10, range=(-1, 1))[0].tolist()
    assert 0 <= found.auc <= 1


def test_diagnosis_of_separated_and_of_collapsed_features() -> None:
    labels = torch.arange(30) % 3
    noise = 0.01 * torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    apart = diagnose(torch.eye(8)[labels] + noise, labels)
    assert apart["pair_auc"] > 0.99
    assert diagnose(torch.ones(30, 8) + noise, labels)["feature_std"] < 0.1
    assert "alignment" in diagnose(torch.eye(8)[labels], positive=torch.eye(8)[labels])


def test_hog_counts_the_orientation_of_edges() -> None:
    vertical = torch.zeros(1, 3, 16, 16)
    vertical[..., 8:] = 1
    cells = HOG(8).cells(vertical)[0]
    assert cells.shape == (9, 2, 2)
    # Strength 1 in two columns; the direction lies on the border of the first and the last bin, which share it.
    torch.testing.assert_close(cells[0], cells[8])
    torch.testing.assert_close(cells.sum(0), torch.full((2, 2), 1 / 8), rtol=1e-3, atol=0)  # luma weighs white 0.9999
    horizontal = HOG(8).cells(vertical.mT)[0]
    assert horizontal.sum((1, 2)).argmax() == 4
    features = hog_encoder()(photos(3).images)
    assert features.shape == (3, 36 * 9)
    assert hog_encoder().maps(photos(3).images).shape == (3, 9, 4, 4)
    brighter = (photos(3).images // 2 + 60).to(torch.uint8)
    torch.testing.assert_close(hog_encoder()(photos(3).images), hog_encoder()(brighter), atol=0.1, rtol=0)


def test_pixels_as_an_encoder_are_the_pixel_features() -> None:
    train, test = photos(6), photos(4, 1)
    encoder = pixel_encoder(train)
    bank, queries = pixel_features(train, test)
    torch.testing.assert_close(encoder(train), bank)
    torch.testing.assert_close(encoder(test), queries)
    assert encoder.maps(test.images).shape == (4, 192, 4, 4)
