"""Hand-ins with the same code: a place to look, not a verdict.

Two answers are the same when their syntax trees agree after names, comments, docstrings and layout are taken away. Not
counted: the released cell, answers of one or two statements, and the answers that the course itself shows.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from autograder.grade import Grade


@dataclass(frozen=True)
class Pair:
    """Two students and the exercises whose answers are the same code."""

    first: str
    second: str
    exercises: tuple[str, ...]
    weight: float  # for each exercise 1 / (how many others share that code): what few share says more


def same_code(grades: Sequence[Grade]) -> list[Pair]:
    """Every pair of students that shares code, the most telling pairs first."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for grade in grades:
        for exercise, print_ in grade.prints.items():
            groups[exercise, print_].append(grade.student)
    shared: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (exercise, _), students in groups.items():
        for a, b in combinations(sorted(students), 2):
            shared[a, b][exercise] = 1 / (len(students) - 1)
    pairs = [Pair(a, b, tuple(sorted(found)), sum(found.values())) for (a, b), found in shared.items()]
    return sorted(pairs, key=lambda p: (-p.weight, p.first, p.second))
