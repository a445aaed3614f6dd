"""Checks of the sources of the book (pages, links, pictures, questions), of its page cache, and of the built pages."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
sys.path.append(str(BOOK / "_ext"))

import api  # noqa: E402
import page_cache  # noqa: E402
import parts as course_parts  # noqa: E402
import repository  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS_LISTED = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
LISTED = [TOC["root"], *(page["file"] for top in CHAPTERS_LISTED for page in (top, *top.get("sections", [])))]
PAGES = sorted(BOOK.rglob("*.md"))
CHAPTERS = [page for page in PAGES if re.match(r"\d\d-", page.name)]
FENCE = re.compile(r"^(`{3,})\{?(code-cell|literalinclude|math|bash|python|bibliography)\b.*?^\1$", re.M | re.S)
EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|video|audio|source)\b[^>]*\bsrc=["'](?:https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|preconnect|dns-prefetch|modulepreload|icon)\b)[^>]*\bhref=["'](?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//""",
    re.I,
)

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
by_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)


def prose(page: Path) -> str:
    """The page without code cells, code blocks and front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.S)
    return FENCE.sub("", text)


def test_every_page_is_in_the_table_of_contents() -> None:
    assert sorted(LISTED) == sorted(str(page.relative_to(ROOT).with_suffix("")) for page in PAGES)


@by_name
def test_local_links_resolve(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\{literalinclude\}\s+(\S+)", text)
    targets += re.findall(r"\{(?:figure|image|download)\}`?\s*(\S+?)`?\n", text)
    targets += [t for t in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page)) if not t.startswith(("http", "mailto"))]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_labels_are_unique() -> None:
    """Across pages: Sphinx refuses the second one, but only once a whole book is built."""
    pattern = r"^\(([\w-]+)\)=$|^\$\$ \(([\w-]+)\)$|^:(?:label|name): ([\w-]+)$|^ +name: ((?:fig|tab)-[\w-]+)$"
    owners: dict[str, list[str]] = {}
    for page in PAGES:
        for found in re.findall(pattern, page.read_text(), re.M):
            owners.setdefault("".join(found), []).append(page.stem)
    assert len(owners) > 30
    assert not {label: pages for label, pages in owners.items() if len(pages) > 1}


@by_name
def test_shown_functions_exist(page: Path) -> None:
    for path, name in re.findall(r"\{literalinclude\}\s+(\S+)\n:pyobject:\s+(\S+)", page.read_text()):
        source = (page.parent / path).read_text()
        assert re.search(rf"^\s*(def|class) {name.split('.')[-1]}\b", source, re.M), f"{path} has no {name}"


@by_name
def test_pictures_have_alternative_text(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"!\[\s*\]\(", text), "a Markdown picture without text"
    for block in re.findall(r"^(?:`{3,}|:{3,})\{(?:figure|image)\}.*?^(?:`{3,}|:{3,})$", text, re.M | re.S):
        assert ":alt:" in block, block
    for cell in re.findall(r"^```\{code-cell\}[^\n]*\n---\n(.*?)\n---$", text, re.M | re.S):
        notebook = yaml.safe_load(cell).get("mystnb", {})
        if notebook:
            assert len(notebook.get("image", {}).get("alt", "")) > 20, cell
        if "figure" in notebook:
            assert {"caption", "name"} <= set(notebook["figure"]), cell


@by_chapter
def test_chapter_has_the_length_of_a_chapter(page: Path) -> None:
    words = len(re.sub(r"[`$:{}|#*\-]+", " ", prose(page)).split())
    assert 2000 <= words <= 4500, f"{words} words"


@by_chapter
def test_quick_questions_explain_every_option(page: Path) -> None:
    options = re.findall(r"^:{3,}\{dropdown\}[^\n]*\n:class-container: quiz quiz-(right|wrong)\n\n?(.*?)^:{3,}$",
                         page.read_text(), re.M | re.S)  # fmt: skip
    assert sum(verdict == "right" for verdict, _ in options) >= 2
    assert all(len(why.split()) >= 8 for _, why in options), "an option without an explanation"
    assert sum(verdict == "wrong" for verdict, _ in options) >= 4


@by_chapter
def test_every_exercise_has_a_folded_solution(page: Path) -> None:
    text = page.read_text()
    exercises = re.findall(r"\{exercise\}.*?:label:\s*(\S+)", text, re.S)
    solutions = re.findall(r"\{solution(?:-start)?\}\s+(\S+)\n(?::label:[^\n]*\n)?:class: dropdown", text)
    assert exercises
    assert sorted(exercises) == sorted(solutions)


@by_name
def test_recorded_numbers_are_not_typed(page: Path) -> None:
    """A number that a finding holds is computed from its file, so it cannot go stale in a sentence."""
    from benchmarks.findings.common import Finding

    words = set(re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", prose(page)))
    for name in re.findall(r"findings/(\w+\.json)", page.read_text()):
        finding = Finding.load(ROOT / "benchmarks" / "findings" / name)
        results = [f(arm) for arm in finding.arms for f in (finding.mean, finding.difference)]
        recorded = {f"{abs(v):.3f}" for r in results for v in (r.value, r.low, r.high)}
        assert not words & recorded, f"{page.name} types {words & recorded} of {name}"


def test_config_fails_on_errors_and_stays_offline() -> None:
    assert CONFIG["execute"]["allow_errors"] is False
    assert CONFIG["execute"]["raise_on_error"] is True
    assert CONFIG["only_build_toc_files"] is True
    sphinx = CONFIG["sphinx"]["config"]
    assert "://" not in json.dumps({**CONFIG, "parse": None})
    assert not {"sphinx_thebe", "sphinx.ext.intersphinx"} & set(sphinx["extensions"])
    assert sphinx["nb_ipywidgets_js"] == {}
    mathjax = BOOK / "_static" / sphinx["mathjax_path"]
    assert mathjax.is_file()
    assert "Apache License" in (mathjax.parent / "LICENSE").read_text()


@by_name
def test_addresses_of_other_sites_are_well_formed(page: Path) -> None:
    """What can be checked without a network; `make links` asks the sites."""
    for address in re.findall(r"""(?<![\w"'])(https?://[^\s)>"'`]+)""", prose(page)):
        assert address.startswith("https://"), address
        if "arxiv.org" in address:
            assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", address), address


def test_own_assets_are_offline() -> None:
    for path in [*BOOK.rglob("*.css"), *BOOK.glob("_static/js/*.js"), *BOOK.glob("_static/*.svg")]:
        assert not EXTERNAL.search(path.read_text()), path


@pytest.mark.parametrize(
    ("html", "external"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<link href="https://fonts.example" rel="preconnect">', True),
        ("<style>@import url(https://fonts.example/css)</style>", True),
        ('<script src="../_static/x.js"></script><a href="https://arxiv.org/abs/2002.05709">paper</a>', False),
        ('<link rel="canonical" href="https://book.example/">', False),
    ],
)
def test_external_asset_pattern(html: str, external: bool) -> None:
    assert bool(EXTERNAL.search(html)) is external


def test_built_pages_are_offline_and_described() -> None:
    pages = sorted((ROOT / "_build" / "html" / "book").rglob("*.html"))
    if not pages:
        pytest.skip("the book has not been built here: make book")
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not EXTERNAL.search(html), f"{page.name} loads from the network"
        html = re.sub(r"<script(?![^>]*\bsrc=).*?</script>", "", html, flags=re.S)  # tags in a script's strings
        assert "&lt;Figure size" not in html, f"{page.name}: a figure is shown as its name only"
        pictures = [
            tag for tag in re.findall(r"<img\b[^>]*>", html) if "logo__image" not in tag
        ]  # its title is beside it
        said = r'\balt="(?![^"]*\.(?:png|svg)")[^"]{20,}"'  # by default the alternative text is the file's name
        bare = [tag for tag in pictures if not re.search(said, tag)]
        assert not bare, f"{page.name}: a picture without alternative text: {bare[0][:200]}"


def anchors_and_links(page: Path) -> tuple[set[str], list[str]]:
    """The names that a built page defines, and the targets of its links, pictures, scripts and styles."""
    html = re.sub(r"<script(?![^>]*\bsrc=).*?</script>", "", page.read_text(encoding="utf-8"), flags=re.S)
    tags = re.findall(r"<[a-zA-Z][^>]*>", html)
    names = {name for tag in tags for name in re.findall(r"""\s(?:id|name)=["']([^"']+)["']""", tag)}
    targets = [target for tag in tags for target in re.findall(r"""\s(?:href|src)=["']([^"']*)["']""", tag)]
    return names, [unescape(target) for target in targets]


def test_links_inside_the_built_book_lead_somewhere() -> None:
    """Every file that a page links to exists, and so does every place in it."""
    folder = ROOT / "_build" / "html"
    built = [page for page in folder.rglob("*.html") if "_static" not in page.parts]
    pages = {page.resolve(): anchors_and_links(page) for page in built}
    if not pages:
        pytest.skip("the book has not been built here: make book")
    broken = []
    for page, (_, links) in pages.items():
        for link in links:
            if re.match(r"[a-z]+:|//", link):
                continue
            file, _, place = unquote(link).partition("#")
            target = (page.parent / file.split("?")[0]).resolve() if file else page
            if not target.exists():
                broken.append(f"{page.relative_to(folder)}: {link}")
            elif place and target in pages and place not in pages[target][0]:
                broken.append(f"{page.relative_to(folder)}: {link} (no such place)")
    assert not broken, broken[:10]


# --- the parts, their labs, and where the book is published ----------------------------------------------------------


def test_every_part_has_a_card_and_a_page_or_is_to_come() -> None:
    known = course_parts.parts(ROOT)
    assert [part.number for part in known] == list(range(15))
    assert "```{part-cards}" in (BOOK / "index.md").read_text()
    for part in known:
        card = course_parts.card(part)
        assert part.title in card
        assert len(part.blurb.split()) >= 4
        assert ("part-ready" in card) == bool(part.chapter) == (f"book/{part.chapter}" in LISTED)
        assert ("to come" in card) != bool(part.chapter)
        assert bool(part.lab) == (part.minutes > 0)
        assert part.minutes <= 195, "2 to 3 hours a lab"
        assert part.lab_and_time.endswith("to come") != bool(part.lab)
    assert {f"{part.number:02d}" for part in known if part.chapter} == {page.stem[:2] for page in CHAPTERS}
    assert known[3].chapter == "03-simclr", "a part of two pages starts with that of its first method"


def test_a_part_without_files_is_to_come(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    assert all("part-later" in course_parts.card(part) for part in course_parts.parts(tmp_path))
    (tmp_path / "book" / "03-other.md").touch()
    third = course_parts.parts(tmp_path)[3]
    assert third.chapter == "03-other"
    assert ":link: 03-other" in course_parts.card(third)


def test_downloaded_lab_installs_the_course_first(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "labs/00_warmup/00_warmup.ipynb").read_text())
    for address, source in {"": "*.whl", "someone/course": "git+https://github.com/someone/course"}.items():
        changed = repository.with_install_cell(notebook, address)
        code = [cell for cell in changed["cells"] if cell["cell_type"] == "code"]
        assert source in "".join(code[0]["source"])
        assert [cell for cell in changed["cells"] if cell["id"] != "install"] == notebook["cells"]


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("https://github.com/someone/course.git", "someone/course"),
        ("git@github.com:someone/course.git", "someone/course"),
        ("https://github.com/someone/course", "someone/course"),
        ("/srv/git/course", ""),
    ],
)
def test_address_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, name: str) -> None:
    for variable in ("SSLCOURSE_REPOSITORY", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(variable, raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    assert repository.find_repository(tmp_path) == name
    monkeypatch.setenv("SSLCOURSE_REPOSITORY", "other/fork")
    assert repository.find_repository(tmp_path) == "other/fork"


# --- the reference ----------------------------------------------------------------------------------------------------


def test_docstrings_become_rst() -> None:
    text = """Loss of *all* views, with x_ and |x| and 2 * 3.

The `sum`s are over `a, b`:

    L = sum_i x_i * |y|

as in the paper.

Args:
    x: (N, D) float; `x[i]` is row i of what
        was given.

Returns:
    value: scalar, and its
        continuation.
    other: (N,).

Raises:
    InputError: an `unfinished
        name` over two lines.
"""
    rst = "\n".join(api.to_rst(text.splitlines()))
    assert "*all* views, with x\\_ and \\|x\\| and 2 \\* 3" in rst
    assert "The ``sum``\\ s are over ``a, b``" in rst
    assert ".. code-block:: text\n\n    L = sum_i x_i * |y|\n\n" in rst
    assert "Args:\n    x: (N, D) float; ``x[i]`` is" in rst
    assert ":returns:\n\n   * value: scalar, and its\n     continuation.\n   * other: (N,)." in rst
    assert "``unfinished name``" in rst


def test_every_package_has_a_page_in_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (BOOK / "api").glob("*.md"))
    packages = {path.parent.name for path in (ROOT / "sslcourse").glob("*/__init__.py")} - {"commands"}
    assert set(re.findall(r"^```\{package\} sslcourse\.(\w+)$", pages, re.M)) == packages


# --- the page cache ---------------------------------------------------------------------------------------------------

PAGE = """---
file_format: mystnb
kernelspec: {{name: python3}}
---
# A page

```{{code-cell}} ipython3
:tags: [hide-input]
%precision 3
from pathlib import Path
from tinylib.sub import value
from tinylib import other
print("value", value(), {extra})
print(Path("numbers.json").read_text())
```
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tinylib").mkdir()
    (tmp_path / "tinylib/__init__.py").write_text("")
    (tmp_path / "tinylib/sub.py").write_text("from .deep import number\n\ndef value():\n    return number\n")
    (tmp_path / "tinylib/deep.py").write_text("number = 1\n")
    (tmp_path / "tinylib/other.py").write_text("import json\n")
    (tmp_path / "tinylib/unused.py").write_text("")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/numbers.json").write_text("[1, 2]")
    (tmp_path / "pages/index.md").write_text(PAGE.format(extra=0))
    return tmp_path


def test_inputs_of_a_page(project: Path) -> None:
    inputs = page_cache.page_inputs(project / "pages/index.md", project)
    local = {name for name in inputs if "/" in name}
    assert local == {f"tinylib/{m}.py" for m in ("__init__", "sub", "deep", "other")} | {"pages/numbers.json"}
    assert {"cells", "python"} <= set(inputs)
    assert "json" not in inputs, "the standard library changes with Python only"


def test_page_without_code_has_no_inputs(project: Path) -> None:
    (project / "pages/index.md").write_text("# Words only\n\n```python\nimport tinylib\n```\n")
    assert page_cache.page_inputs(project / "pages/index.md", project) == {}


@pytest.mark.parametrize(
    ("file", "text", "runs"),
    [
        ("tinylib/deep.py", "number = 2\n", True),
        ("pages/numbers.json", "[3]", True),
        ("pages/index.md", PAGE.format(extra=1), True),
        ("pages/index.md", PAGE.format(extra=0).replace("# A page", "# Another title"), False),
        ("tinylib/unused.py", "number = 2\n", False),
    ],
)
def test_only_what_a_page_uses_makes_it_run(project: Path, file: str, text: str, runs: bool) -> None:
    store, pages = project / "store.json", {"index": project / "pages/index.md"}
    now, changed = page_cache.changed_pages(pages, project, store)
    assert changed == ["index"]
    store.write_text(json.dumps(now))
    assert page_cache.changed_pages(pages, project, store)[1] == []
    (project / file).write_text(text)
    assert page_cache.changed_pages(pages, project, store)[1] == (["index"] if runs else [])


def test_build_runs_a_page_again_when_the_library_changes(project: Path) -> None:
    """The whole way: build, build again from the cache, change a module two imports away, build again."""
    (project / "_toc.yml").write_text("format: jb-book\nroot: pages/index\n")
    (project / "_config.yml").write_text(
        "title: tiny\nonly_build_toc_files: true\nexecute: {execute_notebooks: cache}\n"
        f"sphinx: {{local_extensions: {{page_cache: {BOOK / '_ext'}}}, config: {{extensions: [myst_nb, jupyter_book, "
        "sphinx_external_toc, sphinx_thebe, sphinx_comments, sphinx_book_theme, page_cache]}}\n"
    )

    def build() -> tuple[str, str]:
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(project)]
        run = subprocess.run(
            command, capture_output=True, text=True, cwd=project, env={**os.environ, "PYTHONPATH": str(project)}
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr, (project / "_build/html/pages/index.html").read_text()

    log, html = build()
    assert "value 1" in html
    assert "to run: pages/index" in log
    log, _ = build()
    assert "to run" not in log
    assert "Executing notebook" not in log
    (project / "tinylib/deep.py").write_text("number = 7\n")
    log, html = build()
    assert "to run: pages/index" in log
    assert "value 7" in html
