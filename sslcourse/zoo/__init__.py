"""Names -> models with published weights, and the readers of official checkpoint files.

    from sslcourse import zoo
    model = zoo.load("timm_vit_tiny_patch16", "model.safetensors")

How to add a reader: write a function in `readers.py` that takes the tensors of the official file and the model and
returns them under the model's own names, and add an `Entry` to the dict in `entries.py`. `load` reads the file without
running code, and reports every key and shape that does not fit.
"""

from sslcourse.zoo.entries import ENTRIES, Entry
from sslcourse.zoo.load import load

__all__ = ["ENTRIES", "Entry", "load"]
