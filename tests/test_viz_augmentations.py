"""The augmentations shown on one photo."""

import pytest
import torch

from sslcourse.errors import InputError
from sslcourse.viz.augmentations import augmentations, show_augmentations


@pytest.fixture
def photo() -> torch.Tensor:
    """A bright square on a coloured ramp, wider than high."""
    ramp = torch.linspace(20, 200, 60).expand(3, 40, 60) * torch.tensor([1.0, 0.7, 0.4]).view(3, 1, 1)
    ramp = ramp.clone()
    ramp[:, 12:28, 22:38] = torch.tensor([250.0, 240.0, 60.0]).view(3, 1, 1)
    return ramp.to(torch.uint8)


def test_each_does_what_its_name_says(photo: torch.Tensor) -> None:
    made = augmentations(photo, torch.Generator().manual_seed(0))
    square = photo[:, :, 10:50]
    assert torch.equal(made["original"], square)
    assert all(view.shape == (3, 40, 40) and view.dtype == torch.uint8 for view in made.values())
    names = list(made)
    assert sum(not torch.equal(made[a], made[b]) for a in names for b in names) == len(names) * (len(names) - 1)
    assert (made["colour drop"] == made["colour drop"][:1]).all()
    turn = next(name for name in made if name.startswith("rotate"))
    assert torch.equal(made[turn].sum(), square.sum())
    assert (made["cutout"] != square).any(0).float().mean() == pytest.approx((13 / 40) ** 2, abs=0.02)
    edges = made["Sobel filter"][0].float()
    assert edges[18:22, 18:22].max() < 0.2 * edges.max()  # inside the bright square nothing changes
    assert edges[11:13, 15:25].mean() > 0.5 * edges.max()  # its upper edge
    again = augmentations(photo, torch.Generator().manual_seed(0))
    assert all(torch.equal(made[name], again[name]) for name in made)


def test_the_figure_has_a_titled_panel_for_each(photo: torch.Tensor) -> None:
    figure = show_augmentations(photo)
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == list(
        augmentations(photo, torch.Generator().manual_seed(0))
    )


def test_bad_input_is_one_sentence(photo: torch.Tensor) -> None:
    for wrong in (photo.float(), photo[:, :8], photo[None]):
        with pytest.raises(InputError) as error:
            augmentations(wrong, torch.Generator())
        assert "\n" not in str(error.value)
