"""Built pages in a headless browser without a network: nothing sticks out, text has enough contrast, nothing fails."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import HTML, MODES, NAMES, WIDTHS, Tab, chromium

PAGES = sorted(HTML.glob("book/**/*.html"))
BAD = """<!doctype html><title>bad</title><meta name=viewport content='width=device-width'>
<body style="background:#fff">
<p style="color:#999">pale words</p><p style="color:#767676">just dark enough</p>
<p style="color:#888;font-size:30px">large words may be paler</p>
<div style="background:#222"><i style="color:rgba(255,255,255,.3)">half seen</i><b style="color:#eee">seen</b></div>
<p style="color:#eee" hidden>hidden</p><div style="width:900px">wide</div>
<img src="https://example.org/picture.png"><script>nothing.there()</script>"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    if not any(map(shutil.which, NAMES)):
        pytest.skip("there is no Chromium on this machine")
    with chromium() as page:
        yield page


def test_what_the_checks_find(tab: Tab, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    tab.open(page, 390, "light")
    assert {row[4] for row in tab.check("lowContrast")} == {"pale words", "half seen"}
    assert tab.check("tooWide")
    trouble = tab.trouble()
    assert any(line.startswith("exception") for line in trouble)
    assert any("asks for https://example.org/picture.png" in line for line in trouble)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES or [None], ids=lambda page: page.stem if page else "none")
def test_page_in_every_width_and_mode(tab: Tab, page: Path | None) -> None:
    if page is None:
        pytest.skip("the book has not been built here: make book")
    found = []
    for width in WIDTHS.values():
        for mode in MODES:
            tab.open(page, width, mode)
            assert tab.run("document.documentElement.dataset.theme") == mode
            found += [
                (width, mode, what) for what in (*tab.trouble(), *tab.check("tooWide"), *tab.check("lowContrast"))
            ]
    assert not found, found[:10]
