"""The library gives the numbers of the official implementations: `check.py`, run by pytest.

`cases/` holds the small cases. The large ones are run where SSLCOURSE_GOLDEN names a folder that holds them. Cases
without an adapter belong to methods that are not built yet and are left out here (`check.py` counts them as failed).
"""

import os
from pathlib import Path

import pytest
from adapters import ADAPTERS
from check import check
from loading import Case, find, group_of, load

CASES = Path(__file__).parent / "cases"
LARGE = os.environ.get("SSLCOURSE_GOLDEN")


def _adapted(folder: Path, leave_out: frozenset[str] = frozenset()) -> list:
    """The subcases below `folder` that have an adapter."""
    cases: list[Case] = []
    for path, meta in find(folder):
        here = f"{group_of(meta)}/{meta['name']}"
        if meta["name"] in ADAPTERS[group_of(meta)] and here not in leave_out:
            cases += load(path, meta)
    return [pytest.param(case, id=case.label) for case in cases]


SMALL = frozenset(f"{group_of(meta)}/{meta['name']}" for _, meta in find(CASES))


def assert_passes(case: Case) -> None:
    verdict = check(case, ADAPTERS[case.group][case.name])
    if verdict.outcome == "skipped":
        pytest.skip(verdict.messages[0])
    assert verdict.outcome == "passed", "\n".join(verdict.messages)


@pytest.mark.parametrize("case", _adapted(CASES))
def test_small_case(case: Case) -> None:
    assert_passes(case)


@pytest.mark.skipif(LARGE is None, reason="SSLCOURSE_GOLDEN does not name a folder with the large golden cases")
@pytest.mark.parametrize("case", _adapted(Path(LARGE), leave_out=SMALL) if LARGE else [])
def test_large_case(case: Case) -> None:
    assert_passes(case)


def test_every_masked_case_has_an_adapter() -> None:
    """Their methods are all built, so a case without one would be dropped above without a word."""
    folders = [CASES, *([Path(LARGE)] if LARGE else [])]
    cases = {meta["name"] for folder in folders for _, meta in find(folder) if group_of(meta) == "masked"}
    assert cases
    assert cases - ADAPTERS["masked"].keys() == set()


def test_every_adapter_has_a_case_where_all_cases_are_at_hand() -> None:
    if LARGE is None:
        pytest.skip("SSLCOURSE_GOLDEN does not name a folder with the large golden cases")
    known = SMALL | {f"{group_of(meta)}/{meta['name']}" for _, meta in find(Path(LARGE))}
    assert {f"{group}/{name}" for group, adapters in ADAPTERS.items() for name in adapters} <= known
