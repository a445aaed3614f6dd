"""Grades in processes of their own, a few hand-ins ahead of who asks: nbgrader's part takes as long as ours.

The process of nbgrader itself then never imports torch.
"""

import contextlib
import sys
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool

from autograder import batch
from autograder.grade import Grade
from autograder.intake import Submission
from sslcourse.errors import InputError

_MAX_CRASHES = 3


class Ahead:
    """Graders of one lab. They start at once; `preflight` waits for the first.

    Args:
        job: the lab and how to grade it.
        jobs: how many processes.
    """

    def __init__(self, job: batch.Job, jobs: int = 1) -> None:
        self.job, self.jobs, self.crashes = job, jobs, 0
        self.asked: dict[str, tuple[Submission, Future[Grade]]] = {}
        self.later: list[Submission] = []
        self._open()

    def _open(self) -> None:
        with _no_main():
            self.pool, self.accepts = batch.processes(self.job, self.jobs)

    def preflight(self) -> None:
        """Wait until a grader has accepted the course's own solution.

        Raises:
            InputError: no sandbox that is good enough, or checks that do not accept the solution.
        """
        try:
            next(as_completed(self.accepts)).result()
        except BrokenProcessPool:
            raise InputError("the grading process died while it started: is there enough memory?") from None

    def expect(self, submissions: Iterable[Submission]) -> None:
        """What will be asked for, in this order."""
        self.asked.clear()
        self.later = list(submissions)
        self._ask()

    def _ask(self) -> None:
        with contextlib.suppress(BrokenProcessPool):  # `grade` sees to that
            while self.later and len(self.asked) <= self.jobs:
                submission = self.later.pop(0)
                self.asked[submission.student] = submission, self.pool.submit(batch.grade_here, submission)

    def grade(self, submission: Submission) -> Grade:
        """The grade of exactly this submission; what was expected and differs from it does not count."""
        expected, future = self.asked.pop(submission.student, (None, None))
        self.later = [s for s in self.later if s.student != submission.student]
        try:
            if future is None or expected != submission:
                future = self.pool.submit(batch.grade_here, submission)
            self._ask()
            return future.result()
        except BrokenProcessPool:  # it died, say for want of memory: start again
            self.crashes += 1
            if self.crashes > _MAX_CRASHES:
                raise InputError("the grading process dies again and again: is there enough memory?") from None
            self.close()
            self.asked.clear()
            self._open()
            return self.grade(submission)

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """A spawned process runs the main script again, up to its `if`: nbgrader's takes seconds and is of no use."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
