"""Look at built pages in a headless Chromium with the network off: what a reader sees, and what can be measured.

    python tests/browser.py FOLDER [PAGE ...]      pictures of pages at desk and phone width, light and dark, in FOLDER

Chromium is driven through its own protocol over websocket-client, which comes with Jupyter.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

HTML = Path(__file__).resolve().parents[1] / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desk": 1280, "phone": 390}
MODES = ("light", "dark")

CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")


class Tab:
    """One page of a running Chromium."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, suppress_origin=True, timeout=120)
        self._next, self.events = 0, []  # type: int, list[dict[str, Any]]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._next += 1
        self._socket.send(json.dumps({"id": self._next, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._next:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self.events.append(message)

    def run(self, script: str) -> Any:
        """The value of a script in the page, promises awaited."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:500])
        return done["result"].get("value")

    def check(self, name: str) -> list[Any]:
        """What a function of page_checks.js found."""
        return list(self.run(f"{CHECKS}; {name}()"))

    def open(self, page: Path, width: int, mode: str) -> None:
        """Load a page at a width, in the reader's preferred mode, and wait until its formulas are set."""
        self.events.clear()
        self._resize(width, 900)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
        self.call("Page.navigate", url=page.as_uri())
        self.run("new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', () => r()))")
        self.run("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1")
        self.run("new Promise(r => setTimeout(r, 300))")

    def picture(self, path: Path, most: int = 16000) -> None:
        """The whole page, or its first `most` pixels, as PNG."""
        width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
        self._resize(width, min(most, height))
        self.run("new Promise(r => setTimeout(r, 400))")
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def trouble(self) -> list[str]:
        """What the page complained about, and what it asked of the network, since `open`."""
        out = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                out.append(f"exception: {params['exceptionDetails'].get('text')}")
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                out.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
            elif method == "Network.requestWillBeSent" and params["request"]["url"].startswith("http"):
                out.append(f"asks for {params['request']['url']}")
        return out


@contextlib.contextmanager
def chromium() -> Iterator[Tab]:
    """A headless Chromium without a network, and one tab of it."""
    program = next(filter(None, map(shutil.which, NAMES)))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # its processes end one after another
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stderr is not None
            port = next(line for line in process.stderr if "DevTools listening" in line).split(":")[-1].split("/")[0]
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
                target = next(t for t in json.load(answer) if t["type"] == "page")
            tab = Tab(target["webSocketDebuggerUrl"])
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab.call(f"{domain}.enable")
            tab.call(
                "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
            )
            yield tab
        finally:
            process.terminate()
            process.wait(30)


def main(folder: Path, pages: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as tab:
        for page in pages:
            for place, width in WIDTHS.items():
                for mode in MODES:
                    tab.open(page, width, mode)
                    tab.picture(folder / f"{page.stem}-{place}-{mode}.png")
                    for what in (*tab.trouble(), *tab.check("tooWide"), *tab.check("lowContrast")):
                        print(page.stem, place, mode, what)


if __name__ == "__main__":
    found = sorted(HTML.glob("book/**/*.html"))
    main(Path(sys.argv[1]), [p for p in found if not sys.argv[2:] or p.stem in sys.argv[2:]])
