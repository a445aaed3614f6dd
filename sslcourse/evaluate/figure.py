"""Results as a picture: a dot with its interval for each representation, one panel a protocol."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError
from sslcourse.evaluate.protocols import PROTOCOLS
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
    protocols, names = _rows_and_columns(results)
    columns = min(len(protocols), 4)
    lines = math.ceil(len(protocols) / columns)
    size = (1.6 + 3.2 * columns, 0.3 + lines * (1.0 + 0.36 * len(names)))
    figure = _figure(size)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for ax in grid.flat[len(protocols) :]:
        ax.axis("off")
    for ax, protocol in zip(grid.flat, protocols, strict=False):
        shown = [r for r in results if r.detail["protocol"] == protocol]
        for r in shown:
            y = names.index(r.detail["representation"])
            color = _BASELINE if r.detail["representation"] in baselines else _INK
            error = None if math.isnan(r.low) else [[r.value - r.low], [r.high - r.value]]
            ax.errorbar(r.value, y, xerr=error, fmt="o", color=color, capsize=3, markersize=5)
            ax.annotate(f"{r.value:.3f}", (r.value, y), xytext=(0, 6), textcoords="offset points", ha="center", size=8)
        counts = sorted({f"{r.n} {r.over}" for r in shown})
        ax.set_xlabel(f"{_measure(protocol)}\n95 % interval over {' or '.join(counts)}")
        ax.grid(axis="x", color="#dddddd", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    for ax in grid[:, 0]:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.6)
    if title:
        figure.suptitle(title, size=10)
    figure.savefig(path, dpi=150)


def plot_ranking(results: Sequence[Result], path: Path, *, title: str = "", baselines: Sequence[str] = ()) -> None:
    """How the order of the same representations changes with the protocol: one line each, the best on top.

    A hollow dot stands where the interval overlaps that of the next better one: that order may be chance.

    Args: as in `plot_results`.
    """
    protocols, names = _rows_and_columns(results)
    figure = _figure((2.6 + 1.15 * len(protocols), 1.2 + 0.4 * len(names)))
    ax = figure.subplots()
    places: dict[str, list[tuple[int, int, bool]]] = {name: [] for name in names}
    for column, protocol in enumerate(protocols):
        order = sorted((r for r in results if r.detail["protocol"] == protocol), key=lambda r: -r.value)
        for rank, r in enumerate(order):
            unsure = rank > 0 and not r.high < order[rank - 1].low
            places[r.detail["representation"]].append((column, rank + 1, unsure))
    for i, (name, line) in enumerate(places.items()):
        color = _BASELINE if name in baselines else _INK
        style = ("-", "--", ":", "-.")[i % 4]
        ax.plot([c for c, _, _ in line], [rank for _, rank, _ in line], style, color=color, linewidth=1.5)
        for column, rank, unsure in line:
            ax.plot(column, rank, "o", color=color, markerfacecolor="white" if unsure else color, markersize=7)
        if line:
            column, rank, _ = line[-1]
            ax.annotate(name, (column, rank), xytext=(10, 0), textcoords="offset points", va="center", size=9)
    ax.set_xticks(range(len(protocols)), [f"{p}\n{_measure(p, short=True)}" for p in protocols], size=8)
    ax.set_yticks(range(1, len(names) + 1))
    ax.set_ylim(len(names) + 0.5, 0.5)
    ax.set_xlim(-0.3, len(protocols) - 1 + 1.4)
    ax.set_ylabel("rank")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("hollow: the interval overlaps that of the next better one", size=8, loc="left")
    if title:
        figure.suptitle(title, size=10)
    figure.savefig(path, dpi=150)


def _rows_and_columns(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    protocols = list(dict.fromkeys(r.detail["protocol"] for r in results))
    return protocols, list(dict.fromkeys(r.detail["representation"] for r in results))


def _measure(protocol: str, short: bool = False) -> str:
    measure = PROTOCOLS[protocol].measure if protocol in PROTOCOLS else "accuracy"
    return measure if short else f"{protocol}: {measure}"


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure  # without pyplot: no window system, no global state
    except ImportError:
        raise InputError("Figures need matplotlib: pip install 'sslcourse[viz]'.") from None
    return Figure(figsize=size, layout="constrained")
