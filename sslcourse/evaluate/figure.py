"""Results as a picture: a dot with its interval for each representation, one panel a protocol."""

import math
from collections.abc import Sequence
from pathlib import Path

from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result

_INK, _BASELINE = "#0b5394", "#8a8a8a"


def plot_results(results: Sequence[Result], path: Path, *, title: str = "", baselines: Sequence[str] = ()) -> None:
    """Write a PNG (or what the suffix of `path` says).

    Args:
        results: with "protocol" and "representation" in `detail`.
        baselines: representations that are drawn grey.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot: no window system, no global state
    except ImportError:
        raise InputError("Figures need matplotlib: pip install 'sslcourse[viz]'.") from None
    protocols = list(dict.fromkeys(r.detail["protocol"] for r in results))
    names = list(dict.fromkeys(r.detail["representation"] for r in results))
    figure = Figure(figsize=(1.6 + 3.2 * len(protocols), 1.3 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    for ax, protocol in zip(axes, protocols, strict=True):
        for r in (r for r in results if r.detail["protocol"] == protocol):
            y = names.index(r.detail["representation"])
            color = _BASELINE if r.detail["representation"] in baselines else _INK
            error = None if math.isnan(r.low) else [[r.value - r.low], [r.high - r.value]]
            ax.errorbar(r.value, y, xerr=error, fmt="o", color=color, capsize=3, markersize=5)
            ax.annotate(f"{r.value:.3f}", (r.value, y), xytext=(0, 6), textcoords="offset points", ha="center", size=8)
        counts = sorted({f"{r.n} {r.over}" for r in results if r.detail["protocol"] == protocol})
        ax.set_xlabel(f"{protocol} accuracy\n95 % interval over {' or '.join(counts)}")
        ax.grid(axis="x", color="#dddddd", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.6)
    if title:
        figure.suptitle(title, size=10)
    figure.savefig(path, dpi=150)
