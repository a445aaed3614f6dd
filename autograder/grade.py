"""What grading a hand-in yields: a row a property. Plain data; nothing here needs torch."""

from dataclasses import asdict, dataclass, field
from typing import Any

EARNED, LOST, UNTRIED, SKIPPED = "earned", "lost", "not attempted", "not run"


@dataclass
class Row:
    """One property of one exercise."""

    exercise: str
    check: str
    title: str
    out_of: float
    points: float = 0.0
    status: str = LOST
    message: str = ""
    diagnosis: str = ""  # the known mistake that behaves like this answer
    hint: str = ""


@dataclass
class Grade:
    """Everything that is recorded about one hand-in."""

    student: str
    lab: str
    rows: list[Row] = field(default_factory=list)
    by_hand: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # for the student
    remarks: list[str] = field(default_factory=list)  # for the instructor
    refused: str = ""
    output: dict[str, str] = field(default_factory=dict)
    hints_used: dict[str, int] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)  # of the normalised code of each answer: `pairs.same_code`
    sandbox: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        return sum(min(max(r.points, 0.0), r.out_of) for r in self.rows)

    @property
    def out_of(self) -> float:
        return sum(r.out_of for r in self.rows)

    def of(self, exercise: str) -> list[Row]:
        """The rows of one exercise."""
        return [r for r in self.rows if r.exercise == exercise]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"points": self.points, "out_of": self.out_of}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Grade":
        """The inverse of `as_dict`."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(**known | {"rows": [Row(**r) for r in data["rows"]]})
