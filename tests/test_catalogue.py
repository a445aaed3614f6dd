"""Every row of the catalogue points to things that exist, and everything that exists has a row."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sslcourse import catalogue
from sslcourse.catalogue import METHODS, PARTS
from sslcourse.errors import InputError

ROOT = Path(__file__).parents[1]
ROWS = pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)


@ROWS
def test_a_row_is_well_formed(row: catalogue.Method) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name)
    assert row.part in PARTS
    assert 1990 < row.year < 2100
    assert row.arxiv == "" or re.fullmatch(r"\d{4}\.\d{5}", row.arxiv)
    # An arXiv identifier starts with the year and month of first publication.
    assert row.arxiv == "" or int(row.arxiv[:2]) + 2000 == row.year
    assert bool(row.code) == bool(row.presets) != bool(row.training)
    assert bool(row.training) == bool(row.made_by) == bool(row.used_by)


@ROWS
def test_a_row_points_to_what_exists(row: catalogue.Method) -> None:
    if row.code:
        cls = catalogue.method_class(row.name)
        assert cls.name == row.name
        assert tuple(cls.PRESETS) == row.presets
        assert cls.__doc__
    assert (ROOT / row.file).is_file()
    if row.chapter:
        assert (ROOT / "book" / f"{row.chapter}.md").is_file()
    if row.lab:
        assert list((ROOT / "labs" / row.lab).glob("*.ipynb"))
    for case in row.golden:
        assert (ROOT / "tests" / "golden" / "cases" / f"{case}.json").is_file()


def test_every_method_file_has_a_row() -> None:
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "sslcourse" / "methods").glob("[!_]*.py")}
    assert files <= {row.file for row in METHODS.values()}


def test_chapters_and_labs_of_a_part_are_listed() -> None:
    """A chapter or lab numbered like a part belongs to at least one of its methods."""
    listed = {row.chapter for row in METHODS.values()} | {row.lab for row in METHODS.values()}
    methods_parts = {row.part for row in METHODS.values() if row.code}
    found = [p.stem for p in (ROOT / "book").glob("[0-9][0-9]-*.md")]
    found += [p.name for p in (ROOT / "labs").glob("[0-9][0-9]_*")]
    assert {name for name in found if int(name[:2]) in methods_parts} <= listed


def test_golden_cases_belong_to_a_method() -> None:
    assert set(catalogue._GOLDEN) <= set(METHODS)
    for row in METHODS.values():
        assert len(set(row.golden)) == len(row.golden)


def test_names_are_unique_and_ordered_by_part() -> None:
    assert len(METHODS) == len(catalogue._ROWS)
    parts = [row.part for row in METHODS.values()]
    assert parts == sorted(parts)


def test_unknown_methods() -> None:
    with pytest.raises(InputError, match="did you mean 'simclr'"):
        catalogue.method_class("simclear")


OWN = [row for row in METHODS.values() if row.training]


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.name)
def test_methods_with_a_training_of_their_own_say_how(row: catalogue.Method) -> None:
    with pytest.raises(InputError, match=re.escape(f"{row.made_by} trains it, {row.used_by} uses it.")):
        catalogue.method_class(row.name)
    *python, kind = row.made_by.split()
    assert python == ["python", "-m", "sslcourse.segment.train"]
    from sslcourse.commands.segment import Options
    from sslcourse.segment.train import KINDS

    assert kind in KINDS
    options = {word[2:] for word in row.used_by.split() if word.startswith("--")}
    assert options <= {field.name for field in dataclasses.fields(Options)}


def test_markdown_has_a_row_a_method_and_no_broken_cells() -> None:
    lines = catalogue.markdown().splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert len({line.count(" | ") for line in lines}) == 1
    assert any("[Chen et al. 2020](https://arxiv.org/abs/2002.05709)" in line for line in lines)


def test_the_catalogue_does_not_import_torch() -> None:
    code = "import sys, sslcourse.catalogue; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
