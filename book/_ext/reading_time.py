"""Show under each chapter's title how long it takes to read, and whether it runs code."""

from math import ceil
from typing import Any

from docutils import nodes

WORDS_PER_MINUTE = 200  # technical prose
SKIP = (nodes.literal_block, nodes.math_block, nodes.math, nodes.table, nodes.comment, nodes.raw)
SHORTEST = 300  # words: a page below is a list or a table, and gets no line


def count_words(document: nodes.Node) -> int:
    """Words of running text: code, formulas, tables and raw output do not count."""
    words = 0
    for text in document.findall(nodes.Text):
        node = text.parent
        while node is not None and not isinstance(node, SKIP):
            node = node.parent
        if node is None:
            words += len(text.astext().split())
    return words


def show(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Sphinx event `html-page-context`: put the line after the first heading."""
    reference = pagename == app.config.root_doc or pagename.startswith("book/api/")
    if doctree is None or reference or "</h1>" not in context.get("body", ""):
        return
    words = count_words(doctree)
    if words < SHORTEST:
        return
    minutes = ceil(words / WORDS_PER_MINUTE)
    line = f'<p class="reading-time">{minutes} minutes to read</p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", show)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
