"""Make the output's `_static` folder exist before anything is copied into it.

When a first build stops with an error, pydata-sphinx-theme still copies the logo to `_static`; without the folder that
makes a *file* of this name, and every later build fails with "Not a directory" until the output is deleted.
"""

from pathlib import Path
from typing import Any


def make(app: Any) -> None:
    """Sphinx event `builder-inited`."""
    folder = Path(app.outdir) / "_static"
    if folder.is_file():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", make)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
