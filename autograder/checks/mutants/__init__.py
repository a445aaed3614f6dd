"""Known-wrong and other right answers, a file a lab. The grader's own tests: wrong ones fall, and are named.

A long list of wrong answers is easier to read as edits::

    WRONG = edits("patchify", '''
    not_permuted: the axes are never permuted.
    -     x = x.permute(0, 2, 4, 3, 5, 1)

    channels_first: the channels come last.
    - permute(0, 2, 4, 3, 5, 1)
    + permute(0, 2, 4, 1, 3, 5)
    ''')
"""

from autograder.rubric import Wrong


def edits(exercise: str, text: str) -> list[Wrong]:
    """Wrong answers from blocks of `name: hint`, `- old` and `+ new`, as in the text of this module.

    Old and new are pieces of the solution's text, of one line or several; without a `+` the lines are deleted.
    """
    return [_edit(exercise, block) for block in text.strip("\n").split("\n\n")]


def wrong(exercise: str, *entries: tuple[str, str, str, str]) -> list[Wrong]:
    """Wrong answers of one exercise, from (name, old text, new text, hint)."""
    return [Wrong(exercise, *entry) for entry in entries]


def _edit(exercise: str, block: str) -> Wrong:
    head, *lines = block.split("\n")
    name, hint = head.split(": ", maxsplit=1)
    old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
    if not any(line[0] == "+" for line in lines):
        old += "\n"
    return Wrong(exercise, name, old, new, hint)
