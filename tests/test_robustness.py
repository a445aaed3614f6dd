"""mCE computed by hand, effective robustness on a known line, corruptions that are the same for every model."""

import pytest
import torch
from torch import nn

from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate import effective_robustness, fit_logit_line, mce, relative_mce
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.robustness import corruption_hits, corruption_robustness, domain_shift, robustness_result

ERRORS = torch.tensor([[0.2, 0.4], [0.3, 0.3]])
REFERENCE = torch.tensor([[0.1, 0.5], [0.6, 0.9]])


def test_mce_by_hand() -> None:
    # (0.2 + 0.4) / (0.1 + 0.5) = 1 and (0.3 + 0.3) / (0.6 + 0.9) = 0.4; the mean of ratios would be 1.02.
    assert mce(ERRORS, REFERENCE).item() == pytest.approx(0.7)
    assert mce(REFERENCE, REFERENCE).item() == 1.0


def test_relative_mce_by_hand() -> None:
    # Clean errors 0.1 and 0.05: (0.1 + 0.3) / (0.05 + 0.45) = 0.8 and (0.2 + 0.2) / (0.55 + 0.85) = 0.2857...
    expected = (0.8 + 0.4 / 1.4) / 2
    assert relative_mce(ERRORS, 0.1, REFERENCE, 0.05).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("errors", "reference", "sentence"),
    [
        (ERRORS, REFERENCE[:1], r"\(2, 2\), \(1, 2\)"),
        (100 * ERRORS, REFERENCE, "not per cent"),
        (ERRORS, torch.zeros(2, 2), "above 0"),
        (ERRORS * torch.nan, REFERENCE, r"in \[0, 1\]"),
    ],
)
def test_bad_errors_are_one_sentence(errors: torch.Tensor, reference: torch.Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        mce(errors, reference)


def test_effective_robustness_is_the_height_above_the_line() -> None:
    acc_id = torch.tensor([0.5, 0.7, 0.8, 0.9], dtype=torch.float64)
    acc_ood = torch.sigmoid(0.8 * acc_id.logit() - 0.5)
    line = fit_logit_line(acc_id, acc_ood)
    assert (line.slope, line.intercept) == (pytest.approx(0.8), pytest.approx(-0.5))
    on_line = line(0.6).item()
    assert effective_robustness(0.6, on_line, line) == pytest.approx(0)
    assert effective_robustness(0.6, on_line + 0.07, line) == pytest.approx(0.07)
    pairs = torch.stack([acc_id, acc_ood], dim=1)
    assert effective_robustness(0.6, on_line - 0.05, pairs) == pytest.approx(-0.05)
    with pytest.raises(InputError, match="two reference models"):
        fit_logit_line([0.5], [0.4])
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_logit_line([0.5, 1.0], [0.4, 0.5])


def test_corruptions_are_the_same_for_every_model_and_batch_of_predictions() -> None:
    images = torch.randint(256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen: list[list[torch.Tensor]] = [[], []]
    labels = torch.zeros(6, dtype=torch.long)
    for record in seen:

        def predict(x: torch.Tensor, record: list[torch.Tensor] = record) -> torch.Tensor:
            record.append(x.clone())
            return (x.float().mean((1, 2, 3)) > 180).long()

        hits = corruption_hits(predict, images, labels, kinds=["gaussian_noise", "brightness"], severities=(1, 5))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert hits.shape == (2, 2, 6)
    assert hits[1, 0].sum() > hits[1, 1].sum()  # brighter is over the threshold
    result = robustness_result(hits, torch.tensor([1, 1, 1, 1, 0, 1]) > 0, ["gaussian_noise", "brightness"])
    assert result.value == pytest.approx(hits.float().mean().item())
    assert result.low <= result.value <= result.high
    errors = torch.tensor(list(result.detail["errors"].values()))
    torch.testing.assert_close(errors, 1 - hits.float().mean(2))


def coloured(n: int, seed: int = 0) -> Images:
    """Class 0 is reddish, class 1 bluish."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(60, 120, (n, 3, 16, 16), generator=g)
    images[labels == 0, 0] += 12
    images[labels == 1, 2] += 12
    return Images(images.to(torch.uint8), labels, ["red", "blue"], "colours")


def test_corruptions_cost_a_probe_on_pixels_accuracy() -> None:
    train, test = coloured(60), coloured(30, 1)
    encoder = Encoder(nn.Sequential(nn.AvgPool2d(16), nn.Flatten()))
    result = corruption_robustness(encoder, train, test, kinds=["contrast", "gaussian_blur"], severities=(1, 5))
    assert result.detail["clean_accuracy"] == 1.0
    blurred = result.detail["errors"]["gaussian_blur"]
    assert blurred == [0.0, 0.0]  # the mean colour survives a blur
    assert result.detail["errors"]["contrast"][1] <= 0.5
    assert result.n == 30


def test_the_probe_is_fitted_before_it_sees_the_shift() -> None:
    train, test = coloured(40), coloured(20, 1)
    swapped = Images(test.images.flip(1), test.labels, test.classes, "swapped")
    encoder = Encoder(nn.Sequential(nn.AvgPool2d(16), nn.Flatten()))
    result = domain_shift(encoder, train, test, swapped)
    assert result.detail["unshifted_accuracy"] == 1.0
    assert result.value == 0.0
