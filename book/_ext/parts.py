"""The parts of the course, from one table: cards on the landing page, and links that exist only where a chapter does.

```{part-cards}
```                     one card a part; a part is "to come" until book/NN-*.md exists
{lab}`3`                "lab 3, 3 hours", or "lab 3, to come"
{part}`3`               "3 · SimCLR and MoCo", a link once there is a chapter
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

from sslcourse.catalogue import METHODS, PARTS

BLURBS = {
    0: "PyTorch, vision transformers and statistics: what the rest takes for granted, and a warm-up lab.",
    1: "Rotation, jigsaw, context, colour: what a free task teaches, and what it does not.",
    2: "From pairs and triplets to InfoNCE; hard negatives; augmentation.",
    3: "Two views, one batch of negatives, a head to throw away; then a queue and a slow twin.",
    4: "Contrast with labels, per pixel, with swapped backgrounds, and per augmentation.",
    5: "Learning without negatives, and why it does not collapse. Clusters as targets.",
    6: "Transformers for images; self-distillation; attention that finds objects.",
    7: "Hide patches, predict tokens or pixels; why three quarters can be missing.",
    8: "Masked images for hierarchical backbones; what the target should be.",
    9: "Distillation meets masking; curated data; features that need no fine-tuning.",
    10: "Captions as labels; zero-shot, prompts, robustness, and how to fool it.",
    11: "Prompts in, masks out; ambiguity as three answers; the data engine.",
    12: "Fast, mobile, high-quality, grounded, and matting.",
    13: "VideoMAE, Unmasked Teacher, MaskFeat on clips.",
    14: "kNN, linear, few labels, clustering, transfer; how sure a number can be.",
}


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        number, title, blurb: what its card says.
        chapter: its page in book/, without suffix, "" while it is to come.
        lab: folder under labs/, "" while it is to come.
        minutes: the sum of the minutes that the lab's exercises state; 0 without a lab.
    """

    number: int
    title: str
    blurb: str
    chapter: str = ""
    lab: str = ""
    minutes: int = 0

    @property
    def hours(self) -> str:
        """Length of the lab, to half an hour."""
        half_hours = round(self.minutes / 30)
        return f"{half_hours / 2:g} hour{'s' if half_hours > 2 else ''}"

    @property
    def lab_and_time(self) -> str:
        """The lab as a schedule names it."""
        return f"lab {self.number}, {self.hours if self.lab else 'to come'}"


def parts(root: Path) -> list[Part]:
    """The refresher (0) and the fourteen parts, as far as their files exist under `root`."""
    titles = {0: "Refresher and warm-up"} | PARTS
    order = [row.chapter for row in METHODS.values()]  # a part of two pages starts with that of its first method
    found = []
    for number, title in titles.items():
        pages = (root / "book").glob(f"{number:02d}-*.md")
        chapters = sorted(pages, key=lambda page: (order.index(page.stem) if page.stem in order else 0, page.stem))
        labs = [p for p in sorted((root / "labs").glob(f"{number:02d}_*")) if (p / f"{p.name}.ipynb").is_file()]
        chapter, lab = chapters[0].stem if chapters else "", labs[0].name if labs else ""
        found.append(Part(number, title, BLURBS[number], chapter, lab, lab_minutes(root, lab)))
    return found


def lab_minutes(root: Path, lab: str) -> int:
    """Minutes of all exercises of a lab, as the lines "*Difficulty 2, importance 5, 10 minutes, ...*" state them."""
    if not lab:
        return 0
    cells = json.loads((root / "labs" / lab / f"{lab}.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.startswith("*Difficulty")]
    words = [word for line in lines for word in line.replace(",", " ").split()]
    return sum(int(a) for a, b in pairwise(words) if b == "minutes" and a.isdigit())


def card(part: Part) -> str:
    """The card as MyST for a sphinx-design grid."""
    link = [f":link: {part.chapter}", ":link-type: doc"] if part.chapter else []
    state = "part-ready" if part.chapter else "part-later"
    badges = ["{bdg-primary}`chapter`"] if part.chapter else []
    if part.lab:
        badges.append(f"{{bdg-primary-line}}`lab, {part.hours}`")
    if not part.chapter:
        badges.append("{bdg-secondary-line}`chapter to come`" if part.lab else "{bdg-secondary-line}`to come`")
    head = [f":::{{grid-item-card}} {part.number} · {part.title}", *link, f":class-card: {state}"]
    return "\n".join([*head, part.blurb, "", " ".join(badges), ":::"])


class PartCards(SphinxDirective):
    """`{part-cards}`: a grid with a card for every part."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # whether a chapter exists is no change of this page
        cards = "\n\n".join(map(card, parts(Path(self.env.srcdir))))
        return self.parse_text_to_nodes(f"::::{{grid}} 1 2 2 3\n:gutter: 3\n\n{cards}\n::::")


class LabRole(SphinxRole):
    """`{lab}`: a part's lab and how long it takes, or that it is to come."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = {str(part.number): part for part in parts(Path(self.env.srcdir))}
        if self.text not in known:
            return [], [self.inliner.reporter.error(f"there is no part {self.text}", line=self.lineno)]
        self.env.note_reread()
        return [nodes.Text(known[self.text].lab_and_time)], []


class PartRole(SphinxRole):
    """`{part}`: number and title of a part, linked where its chapter exists."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = {str(part.number): part for part in parts(Path(self.env.srcdir))}
        if self.text not in known:
            message = self.inliner.reporter.error(f"there is no part {self.text}", line=self.lineno)
            return [], [message]
        self.env.note_reread()
        part = known[self.text]
        label = f"{part.number} · {part.title}"
        if not part.chapter:
            return [nodes.Text(label)], []
        target, here = f"book/{part.chapter}", self.env.docname
        assert self.env.app.builder is not None
        return [make_refnode(self.env.app.builder, here, target, "", nodes.Text(label))], []


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("part-cards", PartCards)
    app.add_role("lab", LabRole())
    app.add_role("part", PartRole())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
