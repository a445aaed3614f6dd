"""The wire between the trusted side and the student's process: a JSON header plus raw tensor bytes, never pickle.

Frame: ``b"SSL1" | header length (u32) | payload length (u64) | header (JSON, UTF-8) | payload``. In the header a value
that JSON cannot hold stands as ``{"$": kind, ...}``; tensors name their dtype, shape and place in the payload. Every
size is checked against a limit before anything of that size is allocated, because the peer may be hostile.
"""

import json
import math
import socket
import struct
import time
from typing import Any

import torch
from torch import Tensor

MAGIC = b"SSL1"
PREFIX = struct.Struct("<4sIQ")
MAX_HEADER = 256 << 10
MAX_PAYLOAD = 64 << 20
MAX_DEPTH = 12
MAX_DIMS = 16
MAX_STRING = 32 << 10

DTYPES: dict[str, torch.dtype] = {
    str(d).removeprefix("torch."): d
    for d in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
    )
}


class WireError(Exception):
    """A frame that breaks the protocol; what it carried is not used."""


class Closed(WireError):
    """The other side is gone."""


class Late(WireError):
    """The deadline passed before a whole frame came."""


class Foreign:
    """Stands for a value that does not cross the wire; it only knows the name of its type."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


class Ref:
    """A callable or object that stays on the side that owns it; the other side calls it through the wire."""

    def __init__(self, key: str) -> None:
        self.key = key


class Scattered:
    """Marks a tensor that must arrive non-contiguous (same values, every element followed by a gap)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


# ---------------------------------------------------------------------------------------------------- encoding


def _tensor_bytes(t: Tensor) -> bytes:
    flat = t.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


class _Encoder:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0

    def tensor(self, t: Tensor, scattered: bool = False) -> dict[str, Any]:
        if type(t) is not Tensor:  # nn.Parameter, or a subclass whose methods may lie
            t = Tensor.as_subclass(t, Tensor)
        name = str(t.dtype).removeprefix("torch.")
        if name not in DTYPES or t.layout is not torch.strided:
            return {"$": "foreign", "type": f"Tensor({t.dtype}, {t.layout})"}
        if self.size + t.numel() * t.element_size() > MAX_PAYLOAD:
            raise WireError(f"a value of more than {MAX_PAYLOAD >> 20} MB")
        raw = _tensor_bytes(t)
        head = {"$": "tensor", "dtype": name, "shape": list(t.shape), "at": self.size, "grad": bool(t.requires_grad)}
        if scattered:
            head["scattered"] = True
        self.chunks.append(raw)
        self.size += len(raw)
        return head

    def value(self, v: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise WireError(f"a value nested deeper than {MAX_DEPTH}")
        if v is None or v is True or v is False:
            return v
        if type(v) is int:
            return v if abs(v) < 1 << 63 else {"$": "foreign", "type": "int beyond 64 bits"}
        if type(v) is float:
            return v if math.isfinite(v) else {"$": "float", "is": repr(v)}
        if type(v) is str:
            return v[:MAX_STRING]
        if isinstance(v, Tensor):
            return self.tensor(v)
        if isinstance(v, Scattered):
            return self.tensor(v.tensor, scattered=True)
        if isinstance(v, torch.dtype):
            return {"$": "dtype", "is": str(v).removeprefix("torch.")}
        if isinstance(v, Ref):
            return {"$": "ref", "key": v.key}
        if isinstance(v, torch.Generator):  # where it stands in its sequence does not cross: pass a new one
            return {"$": "generator", "seed": v.initial_seed() % (1 << 62)}
        if isinstance(v, list):
            return [self.value(x, depth + 1) for x in v]
        if isinstance(v, tuple):
            return {"$": "tuple", "is": [self.value(x, depth + 1) for x in v]}
        if isinstance(v, dict):
            return {"$": "dict", "is": [[self.value(k, depth + 1), self.value(x, depth + 1)] for k, x in v.items()]}
        if isinstance(v, Foreign):
            return {"$": "foreign", "type": v.type_name}
        return {"$": "foreign", "type": f"{type(v).__module__}.{type(v).__qualname__}"[:200]}


def encode(value: Any) -> bytes:
    """One frame holding `value`: plain values, lists, tuples, dicts, tensors; `Foreign` stands for anything else."""
    encoder = _Encoder()
    header = json.dumps(encoder.value(value), separators=(",", ":"), allow_nan=False).encode()
    if len(header) > MAX_HEADER:
        raise WireError(f"a value whose description exceeds {MAX_HEADER >> 10} KB")
    return b"".join([PREFIX.pack(MAGIC, len(header), encoder.size), header, *encoder.chunks])


# ---------------------------------------------------------------------------------------------------- decoding


class _Decoder:
    """Rebuilds a value; tensors must lie one after the other in the payload, so a frame cannot grow by aliasing."""

    def __init__(self, payload: memoryview) -> None:
        self.payload = payload
        self.cursor = 0

    def tensor(self, head: dict[str, Any]) -> Tensor:
        dtype = DTYPES.get(str(head.get("dtype")))
        shape, at = head.get("shape"), head.get("at")
        if dtype is None or not isinstance(shape, list) or len(shape) > MAX_DIMS or at != self.cursor:
            raise WireError("a tensor header without a known dtype, shape and place")
        if any(type(n) is not int or not 0 <= n < 1 << 31 for n in shape):
            raise WireError("a tensor header with an impossible shape")
        size = math.prod(shape) * dtype.itemsize
        if self.cursor + size > len(self.payload):
            raise WireError("a tensor header that promises more bytes than came")
        raw = bytearray(self.payload[self.cursor : self.cursor + size])
        self.cursor += size
        t = torch.frombuffer(raw, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
        if head.get("scattered") is True:
            t = torch.stack([t, t], dim=-1)[..., 0]
        if head.get("grad") is True and (dtype.is_floating_point or dtype.is_complex):
            t.requires_grad_(True)
        return t

    def value(self, v: Any, depth: int = 0) -> Any:
        if depth > 2 * MAX_DEPTH:
            raise WireError(f"a value nested deeper than {MAX_DEPTH}")
        if isinstance(v, list):
            return [self.value(x, depth + 1) for x in v]
        if not isinstance(v, dict):
            return v
        kind, inner = v.get("$"), v.get("is")
        if kind == "tensor":
            return self.tensor(v)
        if kind == "float" and inner in ("nan", "inf", "-inf"):
            return float(inner)
        if kind == "dtype" and isinstance(inner, str) and inner in DTYPES:
            return DTYPES[inner]
        if kind == "ref" and isinstance(v.get("key"), str):
            return Ref(v["key"])
        if kind == "generator" and type(v.get("seed")) is int and 0 <= v["seed"] < 1 << 62:
            return torch.Generator().manual_seed(v["seed"])
        if kind == "tuple" and isinstance(inner, list):
            return tuple(self.value(x, depth + 1) for x in inner)
        if kind == "dict" and isinstance(inner, list):
            return self.pairs(inner, depth)
        if kind == "foreign" and isinstance(v.get("type"), str):
            return Foreign(v["type"][:200])
        raise WireError("a value of no known kind")

    def pairs(self, items: list[Any], depth: int) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for pair in items:
            if not isinstance(pair, list) or len(pair) != 2:
                raise WireError("a dict that is not a list of pairs")
            key = self.value(pair[0], depth + 1)
            if not isinstance(key, str | int | float | bool | type(None)):
                raise WireError("a dict key that is not a plain value")
            out[key] = self.value(pair[1], depth + 1)
        return out


def decode(header: bytes, payload: bytes | bytearray | memoryview) -> Any:
    """The value of a frame's two parts; anything malformed raises `WireError`."""
    try:
        return _Decoder(memoryview(payload)).value(json.loads(header))
    except WireError:
        raise
    except (ValueError, RecursionError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        raise WireError(f"a frame that cannot be read ({type(error).__name__})") from None


# ---------------------------------------------------------------------------------------------------- sockets


def _read(sock: socket.socket, size: int, deadline: float | None) -> bytearray:
    buffer, got = bytearray(size), 0
    view = memoryview(buffer)
    while got < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late
            sock.settimeout(left)
        else:
            sock.settimeout(None)
        try:
            n = sock.recv_into(view[got:])
        except TimeoutError:
            raise Late from None
        except OSError as error:
            raise Closed(str(error)) from None
        if n == 0:
            raise Closed
        got += n
    return buffer


def send(sock: socket.socket, value: Any, deadline: float | None = None) -> None:
    """Write one frame; `Late` when the reader does not take it before `deadline` (time.monotonic seconds)."""
    frame = encode(value)
    sock.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
    try:
        sock.sendall(frame)
    except TimeoutError:
        raise Late from None
    except OSError as error:
        raise Closed(str(error)) from None


def receive(sock: socket.socket, deadline: float | None = None, max_payload: int = MAX_PAYLOAD) -> Any:
    """Read one frame; `Closed`, `Late` or `WireError` when there is none, it is late, or it is malformed."""
    magic, header_size, payload_size = PREFIX.unpack(_read(sock, PREFIX.size, deadline))
    if magic != MAGIC or header_size > MAX_HEADER or payload_size > max_payload:
        raise WireError("a frame that is too large or not a frame at all")
    header = _read(sock, header_size, deadline)
    return decode(bytes(header), _read(sock, payload_size, deadline))
