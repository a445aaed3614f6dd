"""`sslcourse list`: the catalogue."""

import json
from dataclasses import dataclass

from sslcourse import catalogue
from sslcourse.commands.arguments import parse


@dataclass(frozen=True)
class Options:
    """The methods of the course: name, paper, presets, chapter and lab."""

    json: bool = False
    """Print every field as JSON instead of a table."""
    markdown: bool = False
    """Print the table as Markdown, as the book has it."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "list")
    if options.json:
        print(json.dumps([row.to_dict() for row in catalogue.METHODS.values()], indent=1, ensure_ascii=False))
    elif options.markdown:
        print(catalogue.markdown(), end="")
    else:
        _print_table()


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; do not cut names to rich's default of 80
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "name", "method", "paper", "presets", "chapter", "lab"):
        table.add_column(column, justify="right" if column == "part" else "left", no_wrap=column == "name")
    for row in catalogue.METHODS.values():
        presets = ", ".join(row.presets) or "own training"
        paper = f"{row.paper} arXiv:{row.arxiv}" if row.arxiv else row.paper
        table.add_row(str(row.part), row.name, row.title, paper, presets, row.chapter or "", row.lab or "")
    console.print(table)
