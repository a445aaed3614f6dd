"""Run a page again when the library code or the data behind it has changed.

jupyter-cache finds the stored outputs of a page by its code cells alone, so an edit of the library would leave stale
figures in the book. This extension fingerprints, for every page with code,

- its code cells and its kernel,
- the source of every local module that they import, directly or through other modules (found by reading the import
  statements, so nothing is imported),
- the data files that those sources name, such as ``../benchmarks/findings/NAME.json``,
- the version of Python and of every installed package that they import,

(A method that a page reaches by its name in the catalogue alone is not followed: otherwise every page that trains
anything would depend on every method. Pages import the method that they show.)

When a fingerprint differs from the stored one, the extension drops the stored outputs of that page and has Sphinx read
the page again. The fingerprints lie next to the outputs, in the folder of jupyter-cache.
"""

import ast
import hashlib
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

CELL = re.compile(r"^(`{3,}|:{3,})\{code-cell\}[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
DATA_SUFFIXES = {".json", ".csv", ".npz", ".npy", ".safetensors", ".txt", ".png", ".svg"}
STORE = "page_inputs.json"


def code_cells(text: str) -> list[str]:
    """The Python of a MyST notebook's code cells; magics and shell lines are left out, as `ast` cannot read them."""
    cells = []
    for match in CELL.finditer(text):
        lines = [line for line in match.group(2).splitlines() if not line.lstrip().startswith(("%", "!", ":"))]
        cells.append(re.sub(r"\A---\n.*?\n---\n", "", "\n".join(lines), flags=re.DOTALL))
    return cells


def imported(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` yields both `a` and `a.b`, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def find_module(name: str, folders: list[Path]) -> Path | None:
    """The source file of a local module, or None if `name` is no module under `folders`."""
    for folder in folders:
        stem = folder.joinpath(*name.split("."))
        for path in (stem / "__init__.py", stem.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def named_files(tree: ast.AST, folders: list[Path]) -> Iterator[Path]:
    """Data files that a string in the source names, relative to one of `folders`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            if Path(node.value).suffix not in DATA_SUFFIXES:
                continue
            yield from (folder / node.value for folder in folders if (folder / node.value).is_file())


@cache
def _versions(name: str) -> str:
    top = _distributions().get(name, [])
    return ",".join(sorted(f"{dist}=={importlib.metadata.version(dist)}" for dist in set(top)))


@cache
def _distributions() -> Any:
    return importlib.metadata.packages_distributions()


def page_inputs(page: Path, root: Path) -> dict[str, str]:
    """What the outputs of `page` depend on: file path, package or "cells" -> version or digest; empty without code."""
    cells = code_cells(page.read_text(encoding="utf-8"))
    if not cells:
        return {}
    folders = [page.parent, root]
    inputs = {"cells": _digest("\n\0".join(cells).encode()), "python": platform.python_version()}
    waiting: list[tuple[ast.AST, str]] = [(ast.parse("\n".join(cells)), "")]
    while waiting:
        tree, package = waiting.pop()
        for path in named_files(tree, folders):
            inputs[str(path.resolve().relative_to(root.resolve()))] = _digest(path.read_bytes())
        for name in imported(tree, package):
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):  # a package's __init__ runs before its modules
                module = ".".join(parts[:depth])
                source = find_module(module, folders)
                if source is None:
                    if depth == 1 and module not in sys.stdlib_module_names:
                        inputs[module] = _versions(module)
                    break
                key = str(source.resolve().relative_to(root.resolve()))
                if key not in inputs:
                    inputs[key] = _digest(source.read_bytes())
                    inner = module if source.name == "__init__.py" else ".".join(parts[: depth - 1])
                    waiting.append((ast.parse(source.read_text(encoding="utf-8")), inner))
    return inputs


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def changed_pages(pages: dict[str, Path], root: Path, store: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Fingerprints of all pages with code, and the names of those whose fingerprint is not the stored one."""
    stored = json.loads(store.read_text()) if store.is_file() else {}
    now = {name: inputs for name, path in pages.items() if (inputs := page_inputs(path, root))}
    return now, [name for name in now if now[name] != stored.get(name)]


def drop_outputs(paths: list[Path], folder: Path) -> None:
    """Remove the stored outputs of pages from the jupyter-cache at `folder`."""
    from jupyter_cache import get_cache

    wanted = {str(path.resolve()) for path in paths}
    store = get_cache(folder)
    for record in store.list_cache_records():
        if str(Path(record.uri).resolve()) in wanted:
            store.remove_cache(record.pk)


def outdated(app: Any, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Sphinx event `env-get-outdated`: pages to read again because something they use has changed."""
    from sphinx.util import logging

    pages = {name: Path(env.doc2path(name)) for name in env.found_docs if env.doc2path(name).endswith(".md")}
    folder = Path(env.mystnb_config.execution_cache_path)
    now, stale = changed_pages(pages, Path(app.srcdir), folder / STORE)
    if stale:
        logging.getLogger(__name__).info("[page cache] to run: %s", ", ".join(stale))
        drop_outputs([pages[name] for name in stale], folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STORE).write_text(json.dumps(now, indent=1, sort_keys=True))
    return [name for name in stale if name not in added]


def setup(app: Any) -> dict[str, Any]:
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
