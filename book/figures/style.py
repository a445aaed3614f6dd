"""One look for all figures: two colours that also differ in lightness, system fonts, white ground."""

from typing import Any

BLUE, ORANGE, GREY = "#0b5a87", "#d1651f", "#6b7680"


def use() -> None:
    """Set matplotlib's defaults for a page."""
    import matplotlib

    options: dict[str, Any] = {
        "figure.dpi": 130,
        "savefig.facecolor": "white",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE, GREY, "#1c6b34"]),
        "image.cmap": "viridis",
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
    matplotlib.rcParams.update(options)
