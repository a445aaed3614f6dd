"""The mask decoder as it runs in a page: its graph, kept beside this file, and its weights, read from a model.

    cd book && python -m figures.decoder        writes decoder.json again: after a change of architecture only

The graph names its weights without holding them, so a model that was trained again needs no new graph, and building the
book does not need the packages `onnx` and `onnxscript`, which writing the graph does.
"""

import base64
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = Path(__file__).with_suffix(".json")
LOCATION = "weights"


def _state(model: Any) -> dict[str, Tensor]:
    """Name -> tensor of everything that the exported graph can hold."""
    from sslcourse.segment.export import PromptedMasks

    graph = PromptedMasks(model, multimask=True)
    return {name: x.detach() for name, x in (*graph.named_parameters(), *graph.named_buffers())}


def write(model: Any, path: Path = FILE) -> None:
    """The graph of a decoder without its weights, and the order and shapes in which it expects them, as JSON."""
    import onnx

    from sslcourse.segment.export import export_onnx

    state = _state(model)
    with tempfile.TemporaryDirectory() as folder:
        graph = onnx.load(export_onnx(model, Path(folder) / "decoder.onnx", optimize=False))
    order, offset = [], 0
    for held in graph.graph.initializer:
        held.ClearField("metadata_props")
        if held.name not in state:
            continue
        x = state[held.name]
        held.ClearField("raw_data")
        held.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", LOCATION), ("offset", offset), ("length", 4 * x.numel())):
            held.external_data.add(key=key, value=str(value))
        offset += 4 * x.numel()
        order.append([held.name, [*x.shape]])
    for node in graph.graph.node:  # where in the source it comes from
        for field in ("doc_string", "metadata_props", "name"):
            node.ClearField(field)
    for field in ("value_info", "metadata_props"):
        graph.graph.ClearField(field)
    packed = base64.b64encode(gzip.compress(graph.SerializeToString(), 9, mtime=0)).decode()
    path.write_text(json.dumps({"graph": packed, "weights": order}) + "\n", encoding="utf-8")


def pack(x: Tensor) -> str:
    """A float tensor as bytes, gzip, base64. Values of half precision take half of the space."""
    data = x.detach().float().numpy().astype("<f4").tobytes()
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def decoder(model: Any) -> dict[str, str]:
    """`graph` and `weights` for a page.

    Raises:
        ValueError: the model has not the architecture of the graph.
    """
    kept, state = json.loads(FILE.read_text(encoding="utf-8")), _state(model)
    if any(name not in state or [*state[name].shape] != shape for name, shape in kept["weights"]):
        raise ValueError(
            "the decoder has changed: write book/figures/decoder.json again with python -m figures.decoder"
        )
    flat = torch.cat([state[name].flatten() for name, _ in kept["weights"]])
    return {"graph": kept["graph"], "weights": pack(flat)}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from sslcourse.segment.files import load_tiny

    write(load_tiny())
    print("wrote", FILE.name, FILE.stat().st_size, "bytes")
