"""The reference: every public module of a package, from its docstrings, with autodoc.

    ```{package} sslcourse.losses
    ```                              a section a module, in alphabetical order

Docstrings are written for people who read source: Google sections, `names` in single backticks, equations and tables
indented under the sentence that introduces them. `to_rst` turns that into what Sphinx parses.

A chapter that shows a function with `literalinclude` and `:pyobject:` gets a link to its entry under the code.
"""

import re
from pkgutil import iter_modules
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.directives.code import LiteralInclude
from sphinx.util.docutils import SphinxDirective

SECTIONS = {"Args:", "Attributes:", "Raises:", "Returns:"}
# What stays as it is (`names`, *emphasis*), and the characters that RST would read in its own way.
KEPT = re.compile(r"(`+[^`]+`+|(?<![\w*])\*{1,2}[A-Za-z][\w ,'-]*\*{1,2}(?![\w*]))")
SPECIAL = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")


def inline(line: str) -> str:
    """A line with `names` as literals, emphasis as it is, and everything else escaped."""
    pieces = KEPT.split(line)
    for i, piece in enumerate(pieces):
        if piece.startswith("`"):
            joined = "\\ " if re.match(r"\w", pieces[i + 1]) else ""  # as in `name`s
            pieces[i] = "``" + piece.strip("`") + "``" + joined
        elif i % 2 == 0:
            pieces[i] = SPECIAL.sub(lambda found: "\\" + found[0], piece)
    return "".join(pieces)


def indent(line: str) -> int:
    """Spaces at the beginning of a line."""
    return len(line) - len(line.lstrip())


def whole_names(lines: list[str]) -> list[str]:
    """Lines joined where a `name in backticks` runs over the end of one."""
    out: list[str] = []
    for line in lines:
        if out and out[-1].count("`") % 2 and line.strip():
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return out


def returned(block: list[str]) -> list[str]:
    """The lines under "Returns:" as a field: one paragraph, or a list where each line begins a value of its own."""
    first = min(indent(line) for line in block if line.strip())
    starts = [line for line in block if line.strip() and indent(line) == first]
    several = len(starts) > 1 and all(re.match(r"\s*[\w, ]+: ", line) for line in starts)
    out = [":returns:", ""]
    for line in block:
        mark = "* " if several and line in starts else "  "
        out.append(f"   {mark}{inline(line.strip())}" if line.strip() else "")
    return [*out, ""]


def to_rst(lines: list[str]) -> list[str]:
    """A docstring of this library as RST for napoleon: an indented block outside a section becomes a literal one."""
    lines, out = whole_names(lines), []
    section = literal = False
    number = 0
    while number < len(lines):
        line, before = lines[number], lines[number - 1] if number else ""
        if line.strip() in SECTIONS:
            section, literal = True, False
        elif line.strip() and indent(line) == 0:
            section = False
        if line.strip() == "Returns:":
            end = next(
                (i for i in range(number + 1, len(lines)) if lines[i].strip() and not indent(lines[i])), len(lines)
            )
            out += returned(lines[number + 1 : end])
            number = end
            continue
        if not section and line.strip():
            if not literal and indent(line) and not before.strip():
                literal = True
                out += ["", ".. code-block:: text", ""]
            elif literal and not indent(line):
                literal = False
                out.append("")
        out.append(line if literal or line.strip() in SECTIONS else inline(line))
        number += 1
    return out


def translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """autodoc's event `autodoc-process-docstring`."""
    lines[:] = to_rst(lines)


class Package(SphinxDirective):
    """`{package} NAME`: a section for each public module of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from importlib import import_module

        name = self.arguments[0]
        package = import_module(name)
        modules = sorted(m.name for m in iter_modules(package.__path__) if not m.name.startswith("_") and not m.ispkg)
        text = "\n\n".join(f"## `{m}`\n\n{automodule(f'{name}.{m}')}" for m in modules)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def automodule(name: str) -> str:
    """MyST for a module's docstring and its public members, in the order of the source."""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :member-order: bysource\n```"


class LinkedInclude(LiteralInclude):
    """`literalinclude`, with a link to the reference under a public object of the library."""

    def run(self) -> list[nodes.Node]:
        shown = super().run()
        found = re.fullmatch(r"(?:\.\./)+(sslcourse/.+)\.py", self.arguments[0])
        name = self.options.get("pyobject", "")
        if not found or not name or any(part.startswith("_") for part in name.split(".")):
            return shown
        target = found[1].replace("/", ".") + "." + name
        link = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True, of_code=True
        )
        link["refdoc"] = self.env.docname
        link += nodes.literal("", name)
        return [*shown, nodes.paragraph("", "", nodes.Text("Reference: "), link, classes=["of-code"])]


def link_to_owner(app: Any, env: Any, node: addnodes.pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Event `missing-reference`: a method without words of its own is described with its class."""
    if not node.get("of_code"):
        return None
    owner = node["reftarget"].rsplit(".", 1)[0]
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", owner, node, content) or content


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    # Before napoleon, which reads the sections that are left.
    app.connect("autodoc-process-docstring", translate, priority=400)
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("package", Package)
    app.add_directive("literalinclude", LinkedInclude, override=True)
    app.connect("missing-reference", link_to_owner)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
