"""Results as a picture: a dot with its interval for each representation, one panel a protocol."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError
from sslcourse.evaluate.paired import is_comparison
from sslcourse.evaluate.protocols import PROTOCOLS
from sslcourse.evaluate.result import Result

_INK, _BASELINE = "#0b5394", "#8a8a8a"
_COLORS = (_INK, "#b45f06", "#38761d", "#741b47")  # of trained representations; dark enough on white
_COLUMNS = 11  # protocols side by side in one row of a ranking


def plot_results(results: Sequence[Result], path: Path, *, title: str = "", baselines: Sequence[str] = ()) -> None:
    """Write a PNG (or what the suffix of `path` says).

    Args:
        results: with "protocol" and "representation" in `detail`.
        baselines: representations that are drawn grey.

    Raises:
        InputError: matplotlib is not installed.
    """
    results, protocols, names = _rows_and_columns(results)
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
        counts = sorted({r.counted for r in shown})
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
    results, _, names = _rows_and_columns([r for r in results if _ranks(r.detail["protocol"])])
    columns = list(dict.fromkeys(map(_column, results)))
    rows = math.ceil(len(columns) / _COLUMNS)
    each = math.ceil(len(columns) / rows)
    trained = [name for name in names if name not in baselines]
    colors = {name: _COLORS[trained.index(name) % len(_COLORS)] if name in trained else _BASELINE for name in names}
    figure = _figure((2.6 + 0.95 * each, (1.4 + 0.4 * len(names)) * rows + 0.2))
    for row, ax in enumerate(figure.subplots(rows, squeeze=False)[:, 0]):
        part = columns[row * each : (row + 1) * each]
        _draw_ranks(ax, [r for r in results if _column(r) in part], part, colors)
        ax.set_xlim(-0.3, each - 1 + 1.6)
        ax.set_ylim(len(names) + 0.5, 0.5)
        ax.set_yticks(range(1, len(names) + 1))
        if row == 0:
            ax.set_title("hollow: the interval overlaps that of the next better one", size=8, loc="left")
    if title:
        figure.suptitle(title, size=10)
    figure.savefig(path, dpi=150)


def _draw_ranks(ax: Any, results: Sequence[Result], columns: Sequence[tuple[str, ...]], colors: dict[str, str]) -> None:
    """The places of every representation in each of the columns."""
    places: dict[str, list[tuple[int, int, bool]]] = {name: [] for name in colors}
    for column, of in enumerate(columns):
        order = sorted((r for r in results if _column(r) == of), key=lambda r: -r.value)
        for rank, r in enumerate(order):
            unsure = rank > 0 and not r.high < order[rank - 1].low
            places[r.detail["representation"]].append((column, rank + 1, unsure))
    for i, (name, line) in enumerate(places.items()):
        style = ("-", "--", ":", "-.")[i % 4]
        ax.plot([c for c, _, _ in line], [rank for _, rank, _ in line], style, color=colors[name], linewidth=1.5)
        for column, rank, unsure in line:
            inside = "white" if unsure else colors[name]
            ax.plot(column, rank, "o", color=colors[name], markerfacecolor=inside, markersize=7)
        if line:
            column, rank, _ = line[-1]
            ax.annotate(name, (column, rank), xytext=(10, 0), textcoords="offset points", va="center", size=9)
    labels = ["\n".join((protocol, *of, _measure(protocol, short=True))) for protocol, *of in columns]
    ax.set_xticks(range(len(columns)), labels, size=7)
    ax.set_ylabel("rank")
    ax.spines[["top", "right"]].set_visible(False)


def plot_histograms(results: Sequence[Result], path: Path, *, title: str = "") -> None:
    """Cosines of pairs of images of one class and of two, one panel a representation, from results of `pair_auc`."""
    shown = [r for r in results if "edges" in r.kept]
    figure = _figure((1.0 + 2.6 * len(shown), 2.6))
    for ax, r in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        for kind, color, label in (("negative", _BASELINE, "two classes"), ("positive", _INK, "one class")):
            counts = r.kept[kind].double()
            ax.stairs((counts / counts.sum()).tolist(), r.kept["edges"].tolist(), color=color, label=label)
        ax.set_title(f"{r.detail['representation']}: AUC {r.value:.3f} {r.interval}", size=8, loc="left")
        ax.set_xlabel("cosine similarity of two images", size=8)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    if title:
        figure.suptitle(f"{title}: {shown[0].n} images", size=10)
    figure.savefig(path, dpi=150)


def _rows_and_columns(results: Sequence[Result]) -> tuple[list[Result], list[str], list[str]]:
    """Results of models (not of pairs of them), their protocols and their representations."""
    results = [r for r in results if not is_comparison(r)]
    protocols = list(dict.fromkeys(r.detail["protocol"] for r in results))
    return results, protocols, list(dict.fromkeys(r.detail["representation"] for r in results))


def _column(result: Result) -> tuple[str, ...]:
    """The protocol, and the data where results of several sets of images stand side by side."""
    return (result.detail["protocol"], *([result.detail["data"]] if "data" in result.detail else []))


def _ranks(protocol: str) -> bool:
    return protocol not in PROTOCOLS or PROTOCOLS[protocol].ranks


def _measure(protocol: str, short: bool = False) -> str:
    measure = PROTOCOLS[protocol].measure if protocol in PROTOCOLS else "accuracy"
    return measure if short else f"{protocol}: {measure}"


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure  # without pyplot: no window system, no global state
    except ImportError:
        raise InputError("Figures need matplotlib: pip install 'sslcourse[viz]'.") from None
    return Figure(figsize=size, layout="constrained")
