"""Command line of the grader.

autograder grade PATH...         notebooks, folders or zips of submissions
autograder selftest [LAB...]     the grader's test of itself, on every lab
autograder doctor                which sandbox this machine offers
"""

import argparse
import sys
import tempfile
from pathlib import Path

from sslcourse.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0: done, 1: the self-test found something, 2: bad input."""
    parser = argparse.ArgumentParser(prog="autograder", description="Grade the labs of sslcourse.")
    commands = parser.add_subparsers(dest="command", required=True)

    grade = commands.add_parser("grade", help="grade notebooks, folders or zips of submissions")
    grade.add_argument("paths", nargs="+", type=Path)
    grade.add_argument("--lab", help="name of the lab; found from the notebooks by default")
    grade.add_argument("--out", type=Path, help="folder for results; a run that was interrupted goes on from it")
    grade.add_argument("--jobs", type=int, default=1, help="how many notebooks at a time")
    grade.add_argument(
        "--graded", action="store_true", help="for marks: a course secret and a real sandbox are required"
    )
    grade.add_argument("--sandbox", default="best", help="bubblewrap, landlock or limits; the best there is by default")
    grade.add_argument("--at-least", help="refuse to grade below this sandbox level; with --graded: landlock")

    test = commands.add_parser("selftest", help="solution, empty lab, every known wrong and right answer")
    test.add_argument("labs", nargs="*")
    test.add_argument(
        "--mutations", type=int, default=0, help="also try this many automatic mutations of each function"
    )
    test.add_argument("--sandbox", default="best")

    pack = commands.add_parser("zip", help="the students' hand-out, or Gradescope's autograder")
    pack.add_argument("kind", choices=["student", "gradescope"])
    pack.add_argument("--lab", help="for gradescope: which lab")
    pack.add_argument("--out", type=Path, default=Path("dist"), help="folder for the zip")

    commands.add_parser("doctor", help="which sandbox this machine offers")
    args = parser.parse_args(argv)
    try:
        return {"grade": _grade, "selftest": _selftest, "zip": _zip, "doctor": _doctor}[args.command](args)
    except InputError as error:
        print(f"autograder: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; with --out the same command goes on from here", file=sys.stderr)
        return 130


def _grade(args: argparse.Namespace) -> int:
    from autograder import batch, report
    from autograder.secret import course_secret
    from autograder.submissions import find, released_labs, which_lab

    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: at least one notebook at a time.")
    secret = course_secret("graded" if args.graded else "practice")
    with tempfile.TemporaryDirectory() as folder:
        hand_ins = find(args.paths, Path(folder))
        lab = which_lab(hand_ins, released_labs(), args.lab)
        at_least = args.at_least or ("landlock" if args.graded else "limits")
        job = batch.Job(lab, secret, args.sandbox, at_least, many=len(hand_ins) > batch.MANY)
        printer = report.Printer(len(hand_ins), lab.name)
        grades = batch.run(job, hand_ins, args.out, args.jobs, printer.done)
    printer.close(grades)
    if args.out:
        for path in report.write_all(grades, args.out):
            print(path)
    return 0


def _selftest(args: argparse.Namespace) -> int:
    from autograder import batch
    from autograder.rubric import import_checks
    from autograder.selftest import selftest
    from autograder.submissions import released_labs

    labs = released_labs()
    names = args.labs or [name for name in labs if import_checks(name)]
    failed = False
    for name in names:
        if name not in labs:
            raise InputError(f"unknown lab '{name}'; known: {', '.join(labs)}.")
        grader = batch.open_grader(batch.Job(labs[name], "selftest", args.sandbox, many=True))
        try:
            found = selftest(grader, mutations=args.mutations)
        finally:
            grader.zygote.close()
        print(found)
        for problem in found.problems:
            print(f"  {problem}")
        failed = failed or bool(found.problems)
    return int(failed)


def _zip(args: argparse.Namespace) -> int:
    from autograder import gradescope, handout
    from autograder.secret import course_secret
    from autograder.submissions import released_labs

    args.out.mkdir(parents=True, exist_ok=True)
    if args.kind == "student":
        print(handout.build(args.out / "sslcourse-labs.zip"))
        return 0
    labs = released_labs()
    if args.lab not in labs:
        raise InputError(f"name the lab for Gradescope with --lab; known: {', '.join(labs)}.")
    print(gradescope.build(args.lab, args.out / f"gradescope-{args.lab}.zip", course_secret("graded")))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from autograder.sandbox import LEVELS, Zygote

    for level in LEVELS:
        try:
            with Zygote(level) as zygote:
                print(f"{level:11} works: {zygote.protection}")
        except InputError as error:
            print(f"{level:11} {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
