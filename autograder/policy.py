"""What a student's cell may contain, decided by reading it; and what a typed prediction says."""

import ast
import difflib
import functools
import hashlib
from typing import Any

from autograder.notebook import without_magics

_PREAMBLE = {"torch", "math", "typing", "collections", "itertools", "functools", "dataclasses", "numpy", "__future__"}
_HARMLESS = """operator random time warnings copy contextlib abc enum string re sys os io json types inspect"""
ALLOWED_IMPORTS = _PREAMBLE | set(_HARMLESS.split())
# Only code that wants to look at the process around it, or at files, needs these.
_INSIDES = """_getframe currentframe f_back f_globals f_locals tb_frame gi_frame __globals__ __closure__ __code__
__builtins__ __subclasses__ get_objects get_referrers settrace setprofile meta_path from_file"""
INSIDES = set(_INSIDES.split())
MAX_SOURCE = 200 << 10
_LONG_ENOUGH = 3  # statements


@functools.cache
def preamble_imports(source: str) -> str:
    """Only the imports of allow-listed libraries from a preamble cell, as source."""
    try:
        tree = ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    kept = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            node.names = [a for a in node.names if a.name.split(".")[0] in _PREAMBLE]
            kept += [ast.unparse(node)] if node.names else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _PREAMBLE:
            kept.append(ast.unparse(node))
    return "\n".join(kept)


def objections(source: str, banned: tuple[str, ...]) -> list[str]:
    """Why this cell cannot be graded as it is, one sentence each; [] when it can."""
    if len(source) > MAX_SOURCE:
        return [f"the cell holds {len(source) >> 10} KB of code; the grader reads at most {MAX_SOURCE >> 10} KB."]
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"line {error.lineno} of your cell is not Python: {error.msg}."]
    except (ValueError, RecursionError, MemoryError):
        return ["the cell cannot be read as Python."]
    found: list[str] = []
    for node in ast.walk(tree):
        for module in _imported(node):
            if module.split(".")[0] not in ALLOWED_IMPORTS:
                found.append(f"line {_line(node)} imports {module}: the exercise asks for your own code in PyTorch.")
        name = _name(node)
        if name in banned:
            found.append(
                f"line {_line(node)} uses {name}, which answers the question by itself: write it from its parts."
            )
        elif name in INSIDES:
            found.append(
                f"line {_line(node)} uses {name}: an answer computes with its arguments and looks at nothing else."
            )
    return list(dict.fromkeys(found))


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return []


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.alias):
        return node.name.split(".")[-1]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # getattr(F, "cosine_similarity")
        return node.value if node.value.isidentifier() else ""
    return ""


def literal(source: str, name: str) -> Any:
    """The value of the last `name = <literal>` in a cell, read without running it; None when there is none."""
    try:
        tree = ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    assigned = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
    ]
    try:
        return ast.literal_eval(assigned[-1]) if assigned else None
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=1024)
def normalised(source: str) -> str:
    """The code without names, docstrings, comments and layout: what stays when a copy is disguised."""
    try:
        tree = ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    methods = {
        id(f) for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body
    }  # their names are asked for
    for node in ast.walk(tree):  # first what says nothing, or its names would be counted below
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = body or [ast.Pass()]
            if isinstance(node, ast.FunctionDef):
                node.returns = None
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}")
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.FunctionDef) and id(node) not in methods:
            node.name = names.setdefault(node.name, f"v{len(names)}")
    try:
        return ast.unparse(tree)
    except (RecursionError, ValueError):
        return ""


def code_print(source: str) -> str:
    """A fingerprint of the normalised code of an answer; "" when it is too short to say anything.

    Answers of one or two statements are left out: they look alike because the exercise is short.
    """
    code = normalised(source)
    statements = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.stmt)]
    inside = [n for n in statements if not isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)]
    return hashlib.sha256(code.encode()).hexdigest()[:24] if len(inside) >= _LONG_ENOUGH else ""


def similarity(a: str, b: str) -> float:
    """Share of equal normalised code of two cells, 0 to 1."""
    x, y = normalised(a).split(), normalised(b).split()
    return difflib.SequenceMatcher(None, x, y, autojunk=False).ratio() if x and y else 0.0
