"""Automatic mutations of an answer: small changes that nobody thought of, which the checks must catch all the same."""

import ast
import copy
from collections.abc import Iterator

_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mod,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.Gt: ast.GtE,
    ast.LtE: ast.Lt,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_CALLS = {
    "mean": "sum",
    "sum": "mean",
    "logsumexp": "sum",
    "exp": "log",
    "log": "exp",
    "cat": "stack",
    "stack": "cat",
    "amax": "amin",
    "max": "min",
    "softmax": "log_softmax",
    "eye": "ones",
    "zeros": "ones",
    "normalize": "relu",
    "sqrt": "abs",
}


def mutations(source: str, limit: int = 20) -> list[str]:
    """Up to `limit` different mutants of a cell, spread over its places and kinds."""
    found = list(dict.fromkeys(ast.unparse(tree) for tree in _all(ast.parse(source))))
    original = ast.unparse(ast.parse(source))
    found = [text for text in found if text != original]
    if len(found) <= limit:
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def _all(tree: ast.Module) -> Iterator[ast.Module]:
    nodes = [n for f in tree.body if isinstance(n0 := f, ast.FunctionDef | ast.ClassDef) for n in _inside(n0)]
    for index in range(len(nodes)):
        for change in range(4):
            altered = copy.deepcopy(tree)
            twins = [
                n for f in altered.body if isinstance(n0 := f, ast.FunctionDef | ast.ClassDef) for n in _inside(n0)
            ]
            if _change(twins[index], change):
                yield ast.fix_missing_locations(altered)


def _inside(function: ast.AST) -> list[ast.AST]:
    """Expressions of the body: no docstrings, no annotations."""
    skipped: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0].value))  # type: ignore[attr-defined]
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            skipped |= {id(n) for n in ast.walk(node.annotation)}
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            skipped |= {id(n) for n in ast.walk(node.returns)}
    return [n for n in ast.walk(function) if id(n) not in skipped]


def _change(node: ast.AST, change: int) -> bool:
    """Apply one kind of change to a node in place; False where it does not fit."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and change == 0:
        return _swap(node, "op")
    if isinstance(node, ast.BoolOp) and change == 0:
        return _swap(node, "op")
    if isinstance(node, ast.Compare) and change == 0 and type(node.ops[0]) in _SWAPS:
        node.ops[0] = _SWAPS[type(node.ops[0])]()
        return True
    if isinstance(node, ast.Constant):
        return _constant(node, change)
    if isinstance(node, ast.UnaryOp) and change == 0 and isinstance(node.op, ast.USub | ast.Invert):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.USub()
        return isinstance(node.op, ast.UAdd)
    if isinstance(node, ast.Attribute) and change == 0 and node.attr in _CALLS:
        node.attr = _CALLS[node.attr]
        return True
    if isinstance(node, ast.Call):
        return _call(node, change)
    if isinstance(node, ast.Return) and node.value is not None and change in (0, 1):
        operator = ast.USub() if change == 0 else None
        if operator is not None:
            node.value = ast.UnaryOp(operator, node.value)
        else:
            node.value = ast.BinOp(node.value, ast.Mult(), ast.Constant(2))
        return not isinstance(node.value, ast.Tuple)
    return False


def _swap(node: ast.BinOp | ast.AugAssign | ast.BoolOp, field: str) -> bool:
    new = _SWAPS.get(type(getattr(node, field)))
    if new is not None:
        setattr(node, field, new())
    return new is not None


def _constant(node: ast.Constant, change: int) -> bool:
    if isinstance(node.value, bool):
        node.value = not node.value
        return change == 0
    if isinstance(node.value, int | float) and change in (0, 1):
        node.value = node.value + 1 if change == 0 else node.value - 1 if node.value else 2
        return True
    return False


def _call(node: ast.Call, change: int) -> bool:
    if change == 1 and node.args and isinstance(node.args[0], ast.Name):
        node.args[0] = ast.Call(ast.Attribute(node.args[0], "detach", ast.Load()), [], [])
        return True
    if change == 2 and len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args):
        node.args[0], node.args[1] = node.args[1], node.args[0]
        return True
    if change == 3 and node.keywords:
        node.keywords.pop()
        return True
    return False
