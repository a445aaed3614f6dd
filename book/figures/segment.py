"""Figures of the chapter on SAM: masks over images, and the data of the page's two interactive figures."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .decoder import decoder, pack
from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sslcourse.segment.sam import Sam

COLOURS = ((255, 160, 0), (0, 170, 255), (230, 60, 160), (90, 200, 90), (150, 110, 255), (240, 220, 60))


def outlined(image: Tensor, masks: Sequence[Tensor]) -> Any:
    """(H, W, 3) uint8: an image (3, H, W) uint8 with masks (H, W) bool over it, each in a colour of its own."""
    out = image.permute(1, 2, 0).float()
    for i, mask in enumerate(masks):
        colour = torch.tensor(COLOURS[i % len(COLOURS)]).float()
        grown = torch.nn.functional.max_pool2d((~mask).float()[None, None], 3, 1, 1)[0, 0] > 0
        out[mask] = 0.55 * out[mask] + 0.45 * colour
        out[mask & grown] = colour
    return out.clamp(0, 255).to(torch.uint8).numpy()


def panel(axis: "Axes", picture: Any, title: str = "", points: Sequence[Sequence[float]] = (), box: Any = None) -> None:
    """One picture with its prompts: `points` x y label, `box` x1 y1 x2 y2. A picture that is a string is written."""
    if isinstance(picture, str):
        axis.text(0.0, 0.5, picture, transform=axis.transAxes, va="center", fontsize=9.5)
    else:
        axis.imshow(picture)
    for x, y, label in points:
        axis.plot(x, y, "P" if label else "X", color="#0b6e2e" if label else "#b3261e", ms=9, mec="white", mew=1.2)
    if box is not None:
        x1, y1, x2, y2 = (float(v) for v in box)
        axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="white", lw=2.6)
        axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="#0b6e2e", lw=1.4)
    axis.set_title(title, fontsize=9.5)
    axis.axis("off")


def panels(pictures: Sequence[dict[str, Any]], width: float = 1.75, columns: int = 4) -> "Figure":
    """Several panels; each dictionary holds the arguments of `panel`."""
    import matplotlib.pyplot as plt

    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, (width + 0.3) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, arguments in zip(axes.flat, pictures, strict=False):
        panel(axis, **arguments)
    return figure


def grey(mask: Tensor) -> Any:
    """A mask or its logits as a picture: (H, W) -> (H, W, 3) uint8."""
    p = mask.float() if mask.dtype == torch.bool else mask.sigmoid()
    return (255 * (1 - 0.85 * p[..., None].expand(-1, -1, 3))).to(torch.uint8).numpy()


def lines(
    x: Sequence[float], curves: dict[str, list[Any]], xlabel: str, ylabel: str, flat: dict[str, Any] | None = None
) -> "Figure":
    """Means with their intervals (`Result`) over x, and constants as dashed lines."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.2, 3.2))
    for (name, results), colour, marker in zip(curves.items(), (BLUE, ORANGE, GREY, "#1c6b34"), "osD^", strict=False):
        axis.plot(x, [r.value for r in results], marker + "-", color=colour, ms=4.5, label=name)
        axis.fill_between(x, [r.low for r in results], [r.high for r in results], color=colour, alpha=0.15, lw=0)
        if flat and name in flat:
            axis.axhline(flat[name].value, color=colour, ls="--", lw=1)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(loc="best", fontsize=8.5)
    return figure


def png(pixels: Any) -> str:
    """(H, W[, 3]) uint8 as a data address."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def clickable(model: "Sam", name: str, image: Tensor, ids: Tensor | None, start: Sequence[float]) -> dict[str, Any]:
    """What the page needs of an image (3, S, S) uint8: picture, embedding, true parts, first answer."""
    from sslcourse.segment.widget import ClickToSegment

    shown = ClickToSegment(model, image)
    shown.points = [[*start]]
    embedding = shown.predictor.embedding.image[0]
    return {
        "name": name,
        "picture": shown.picture,
        "embedding": pack(embedding.half()),  # half the space; the answers change in the third decimal
        "parts": None if ids is None else png(ids.numpy()),
        "first": {"points": shown.points, "layers": shown.layers, "iou": shown.iou, "chosen": shown.chosen},
    }


def still_of(figure: "Figure") -> str:
    """A figure as a data address; it is closed."""
    from matplotlib.pyplot import close

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def click_to_segment(model: "Sam", images: Sequence[dict[str, Any]], still: "Figure", alt: str) -> Any:
    """The click-to-segment figure of `_static/js/segment.js`: the notebook widget with a decoder behind it.

    Args:
        model: its decoder goes into the page.
        images: of `clickable`.
        still: what stays when no script runs, with `alt`.
    """
    import sslcourse.segment.widget as widget

    folder = Path(widget.__file__).parent
    script, css = ((folder / name).read_text(encoding="utf-8") for name in ("widget.js", "widget.css"))
    encoder = model.prompt_encoder
    data = {
        **decoder(model),
        "widget": script,
        "css": css,
        "images": list(images),
        "size": model.image_size,
        "grid": encoder.grid,
        "dim": encoder.dim,
    }
    return _figure("ssl-click", data, still, alt)


def recorded(path: str | Path) -> dict[str, Any]:
    """The film that `benchmarks.findings.engine_film` wrote, with its scenes, which are drawn again."""
    from benchmarks.findings.engine_film import pictures

    return {"pictures": pictures(), **json.loads(Path(path).read_text(encoding="utf-8"))}


def engine_still(film: dict[str, Any]) -> "Figure":
    """The scenes of the film at the end of its first and of its last round."""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    from sslcourse.segment.rle import rle_to_mask

    shown = []
    for told in (film["rounds"][0], film["rounds"][-1]):
        for picture, frames in zip(film["pictures"], told["scenes"], strict=True):
            file = io.BytesIO(base64.b64decode(picture.split(",")[1]))
            image = pil_to_tensor(Image.open(file).convert("RGB"))
            size = [film["size"]] * 2
            masks = [rle_to_mask({"size": size, "counts": frames[-1]["counts"]})] if frames else []
            clicks = [one["click"] for one in frames if one["click"]]
            said = f"{len(clicks)} clicks, IoU {frames[-1]['iou']:.2f}" if frames else "skipped"
            shown.append({"picture": outlined(image, masks), "points": clicks, "title": f"{told['name']}\n{said}"})
    return panels(shown, columns=3, width=2.0)


def engine_film(data: dict[str, Any], still: "Figure", alt: str) -> Any:
    """The data engine's film of `_static/js/engine.js`; `data` is what `benchmarks.findings.engine_film` recorded."""
    return _figure("ssl-engine", data, still, alt)


def _figure(name: str, data: dict[str, Any], still: "Figure", alt: str) -> Any:
    from IPython.display import HTML

    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return HTML(
        f'<div class="{name}"><img src="{still_of(still)}" alt="{alt}">'
        f'<script type="application/json">{text}</script></div>'
    )
