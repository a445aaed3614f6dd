"""How the known-wrong answers of a lab are listed."""

from autograder.rubric import Wrong


def wrong(exercise: str, *entries: tuple[str, str, str, str]) -> list[Wrong]:
    """Wrong answers of one exercise, from (name, old text, new text, hint)."""
    return [Wrong(exercise, *entry) for entry in entries]
