"""nbgrader's gradebook, opened once for a whole run, with everything about one hand-in committed together.

nbgrader opens the database nine times for each hand-in and commits after every cell: most of its time goes into waiting
for the disk. Here its own code runs on one connection, and `Book.save` commits; what breaks before that leaves no
half-graded hand-in behind. Its check of cell metadata no longer checks, for each cell, the schema that it checks with.
"""

import contextlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from jsonschema.validators import validator_for
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import common
from nbgrader.preprocessors import SaveCells

from sslcourse.errors import InputError

_USERS = ("nbgrader.converters.autograde", "nbgrader.preprocessors.")


class Book(Gradebook):
    """A gradebook that stays open when nbgrader closes it, and waits for `save` when nbgrader commits."""

    def __init__(self, url: str, course: str) -> None:
        super().__init__(url, course)
        self.url = url
        self.db.commit = self._flush

    def _flush(self) -> None:
        self.db.flush()
        self.db.expire_all()  # as after a commit: what the database computes (sums of scores) is read again

    def save(self) -> None:
        """Commit what nbgrader has written since the last time."""
        self.db().commit()

    def forget(self) -> None:
        """Drop what was not saved, and everything that was read."""
        self.db().rollback()
        self.db().expunge_all()

    def close(self) -> None:
        """nbgrader is done with it for now: what it holds is read anew next time."""
        self.db.flush()
        self.db().expunge_all()


def enter(book: Book, released: Path) -> None:
    """Tell the gradebook what a released lab asks for: its cells and their points, as `generate_assignment` would.

    Raises:
        InputError: graded hand-ins are about other cells.
    """
    name = released.stem
    book.update_or_create_assignment(name)
    resources = {"nbgrader": {"notebook": name, "assignment": name, "db_url": book.url}}
    try:
        SaveCells().preprocess(nbformat.read(released, 4), resources)
    except RuntimeError:
        raise InputError(
            f"{name} has other cells than when its first hand-ins were graded, and gradebook.db keeps their grades: "
            "take the old lab, or move gradebook.db and autograded/ away and grade again."
        ) from None
    book.save()


@contextlib.contextmanager
def one_book(url: str, course: str) -> Iterator[Book]:
    """While the block runs, nbgrader's steps of autograding share the book that is given."""
    book = Book(url, course)

    def shared(wanted: str, *args: Any, **kwargs: Any) -> Gradebook:
        return book if wanted == url else Gradebook(wanted, *args, **kwargs)

    def valid(instance: Any, schema: dict[str, Any]) -> None:
        validator_for(schema)(schema).validate(instance)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(common, "jsonschema", types.SimpleNamespace(validate=valid)))
        for name, module in list(sys.modules.items()):
            if name.startswith(_USERS) and getattr(module, "Gradebook", None) is Gradebook:
                patches.enter_context(mock.patch.object(module, "Gradebook", shared))
        try:
            yield book
        finally:
            book.forget()
            Gradebook.close(book)
