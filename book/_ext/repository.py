"""Links that need the address of the course's repository, and the labs that a reader can download or open in Colab.

The address is `owner/name` on GitHub. It is taken from the environment variable SSLCOURSE_REPOSITORY (or from
GITHUB_REPOSITORY, which GitHub sets in its workflows), else from the remote `origin` of the clone. Without one the
pages have no edit, issue and Colab links; everything else is the same.

Every page whose number has a lab gets a line under its title. The notebook behind it is the lab with one more cell at
its head, which installs the course where it is missing, as on Colab.
"""

import importlib
import inspect
import json
import os
import re
import subprocess
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from parts import Part, parts
from sphinx.util.docutils import SphinxRole

_address: list[str] = []  # linkcode's function is shown neither the application nor its configuration
PAGES_BRANCH = "gh-pages"  # where `ghp-import` and most workflows put built pages; Colab opens the labs from there
INSTALL = """# On Colab, or wherever the course is not installed yet, this cell installs it. Elsewhere it does nothing.
import importlib.util

if importlib.util.find_spec("sslcourse") is None:
    {command}"""
FROM_WHEEL = '''from pathlib import Path

    wheels = sorted(Path(".").glob("sslcourse-*.whl"))
    assert wheels, "put sslcourse-...whl, from the course's hand-out, beside this notebook, and run this cell again"
    %pip install -q "{wheels[-1]}[viz]"'''


def find_repository(root: Path) -> str:
    """`owner/name` on GitHub, or "" when nobody said."""
    for variable in ("SSLCOURSE_REPOSITORY", "GITHUB_REPOSITORY"):
        if name := os.environ.get(variable, ""):
            return name
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    try:
        origin = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except OSError:
        return ""
    found = re.fullmatch(r"(?:https://|git@|ssh://git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?", origin)
    return found[1] if found else ""


def with_install_cell(notebook: dict[str, Any], repository: str) -> dict[str, Any]:
    """The notebook with the cell that installs the course in front of its first code cell."""
    command = (
        FROM_WHEEL if not repository else f'%pip install -q "sslcourse[viz] @ git+https://github.com/{repository}"'
    )
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": INSTALL.format(command=command).splitlines(keepends=True),
    }
    first = next(i for i, c in enumerate(notebook["cells"]) if c["cell_type"] == "code")
    return notebook | {"cells": [*notebook["cells"][:first], cell, *notebook["cells"][first:]]}


def lab_line(part: Part, prefix: str, repository: str) -> str:
    """The line under a chapter's title: how long the lab takes, and how to get it."""
    file = f"labs/{part.lab}/{part.lab}.ipynb"
    links = [f'<a class="lab-download" href="{escape(prefix + file)}" download>Download the lab</a>']
    if repository:
        colab = f"https://colab.research.google.com/github/{repository}/blob/{PAGES_BRANCH}/{file}"
        links.append(f'<a class="lab-colab" href="{escape(colab)}" rel="noopener">Open in Colab</a>')
    return f'<p class="lab-line"><span>Lab, {part.hours}</span> {" ".join(links)}</p>'


def show_lab(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Sphinx event `html-page-context`: put the line after the first heading."""
    number = re.match(r"book/(\d\d)-", pagename)
    if doctree is None or number is None or "</h1>" not in context.get("body", ""):
        return
    part = parts(Path(app.srcdir))[int(number[1])]
    if part.lab:
        line = lab_line(part, "../", app.config.course_repository)
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def write_labs(app: Any, error: Exception | None) -> None:
    """Sphinx event `build-finished`: the notebooks beside the pages."""
    if error is not None or app.builder.format != "html":
        return
    for part in parts(Path(app.srcdir)):
        if part.lab:
            file = Path("labs") / part.lab / f"{part.lab}.ipynb"
            notebook = json.loads((Path(app.srcdir) / file).read_text(encoding="utf-8"))
            target = Path(app.outdir) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(with_install_cell(notebook, app.config.course_repository), indent=1, ensure_ascii=False)
            target.write_text(text + "\n", encoding="utf-8")


class ReportLink(SphinxRole):
    """`{report-link}`: the text as a link to a new issue, or plain where there is no address."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        repository = self.config.course_repository
        if not repository:
            return [nodes.Text(self.text)], []
        return [nodes.reference("", self.text, refuri=f"https://github.com/{repository}/issues/new")], []


def source_link(domain: str, info: dict[str, str]) -> str | None:
    """For `sphinx.ext.linkcode`: where the code of a described object stands in the repository."""
    if domain != "py" or not info["module"] or not _address:
        return None
    module = importlib.import_module(info["module"])
    found: Any = module
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    path = info["module"].replace(".", "/") + ("/__init__.py" if hasattr(module, "__path__") else ".py")
    try:
        line = f"#L{inspect.getsourcelines(inspect.unwrap(found))[1]}"
    except (OSError, TypeError, ValueError):  # an attribute
        return None
    return f"https://github.com/{_address[0]}/blob/main/{path}{line}"


def use_address(app: Any, config: Any) -> None:
    """Sphinx event `config-inited`: the theme's own buttons."""
    config.linkcode_resolve = source_link
    config.course_repository = config.course_repository or find_repository(Path(app.srcdir))
    _address[:] = [config.course_repository] if config.course_repository else []
    if config.course_repository:
        config.html_theme_options |= {
            "repository_url": f"https://github.com/{config.course_repository}",
            "repository_branch": "main",
            "use_repository_button": True,
            "use_edit_page_button": True,
            "use_issues_button": True,
        }


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("course_repository", "", "env")
    app.setup_extension("sphinx.ext.linkcode")
    app.add_role("report-link", ReportLink())
    app.connect("config-inited", use_address)
    app.connect("html-page-context", show_lab)
    app.connect("build-finished", write_labs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
