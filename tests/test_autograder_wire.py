"""The wire: what goes in comes out, and no bytes from a hostile peer crash, hang or allocate beyond the limit."""

import contextlib
import json
import math
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder import wire


def round_trip(value: object) -> object:
    a, b = socket.socketpair()
    with a, b:
        sender = threading.Thread(target=wire.send, args=(a, value))
        sender.start()
        out = wire.receive(b, time.monotonic() + 30)
        sender.join()
    return out


@pytest.mark.parametrize("dtype", wire.DTYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    t = (torch.arange(math.prod(shape)).reshape(shape) % 2).to(dtype)
    got = round_trip([t])[0]
    assert got.dtype == dtype
    assert torch.equal(got, t)


def test_layout_and_gradient_flag() -> None:
    t = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).T[1:]
    assert torch.equal(round_trip(t), t)
    scattered = round_trip(wire.Scattered(t))
    assert torch.equal(scattered, t)
    assert not scattered.is_contiguous()
    assert round_trip(torch.zeros(2, requires_grad=True)).requires_grad
    assert not round_trip(torch.zeros(2)).requires_grad


def test_a_generator_starts_its_sequence_on_the_other_side() -> None:
    sent = torch.Generator().manual_seed(2**61 + 7)
    first = torch.rand(3, generator=sent)
    got = round_trip([sent])[0]
    assert torch.equal(torch.rand(3, generator=got), first)
    for seed in (-1, 1 << 62, "1", None, True):
        header = json.dumps({"$": "generator", "seed": seed}).encode()
        with pytest.raises(wire.WireError):
            wire.decode(header, b"")


def test_what_does_not_cross_is_named() -> None:
    got = round_trip({"a": object(), "b": {1, 2}, "c": 1 << 80, "d": torch.nn.Linear(1, 1)})
    assert [v.type_name for v in got.values()] == [
        "builtins.object",
        "builtins.set",
        "int beyond 64 bits",
        "torch.nn.modules.linear.Linear",
    ]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@settings(max_examples=150, deadline=None)
@given(plain)
def test_plain_values(value: object) -> None:
    data = wire.encode(value)
    _, header_size, _ = wire.PREFIX.unpack(data[: wire.PREFIX.size])
    body = data[wire.PREFIX.size :]
    assert same(wire.decode(body[:header_size], body[header_size:]), value)


@pytest.mark.parametrize(
    "header",
    [
        {"$": "tensor", "dtype": "float32", "shape": [10**6, 10**6], "at": 0},
        {"$": "tensor", "dtype": "float32", "shape": [-1], "at": 0},
        {"$": "tensor", "dtype": "float32", "shape": [1] * 40, "at": 0},
        {"$": "tensor", "dtype": "float32", "shape": [True], "at": 0},
        {"$": "tensor", "dtype": "object", "shape": [1], "at": 0},
        {"$": "tensor", "dtype": "float32", "shape": [1], "at": 4},
        {"$": "tensor", "dtype": ["float32"], "shape": "x", "at": None},
        [{"$": "tensor", "dtype": "float32", "shape": [2], "at": 0}] * 2,
        {"$": "pickle", "is": "gASV"},
        {"$": "dict", "is": [[[1], 2]]},
        {"$": "dict", "is": [[1]]},
        {"no": "kind"},
        {"$": "float", "is": "1"},
    ],
)
def test_malformed_headers(header: object) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(json.dumps(header).encode(), b"\0" * 8)


@pytest.mark.parametrize(
    "data",
    [
        b"nope" + bytes(12),
        struct.pack("<4sIQ", b"SSL1", 2**31, 0),
        struct.pack("<4sIQ", b"SSL1", 2, 2**62) + b"{}",
        struct.pack("<4sIQ", b"SSL1", 100, 0) + b"{",
        b"SS",
        b"",
    ],
)
def test_malformed_frames(data: bytes) -> None:
    a, b = socket.socketpair()
    with a, b:
        a.sendall(data)
        a.shutdown(socket.SHUT_WR)
        with pytest.raises(wire.WireError):
            wire.receive(b, time.monotonic() + 10)


def test_a_silent_peer_is_late() -> None:
    a, b = socket.socketpair()
    with a, b, pytest.raises(wire.Late):
        wire.receive(b, time.monotonic() + 0.05)


def test_deep_nesting_is_refused_on_both_sides() -> None:
    value: list = []
    for _ in range(100):
        value = [value]
    with pytest.raises(wire.WireError):
        wire.encode(value)
    for depth in (100, 100_000):
        with pytest.raises(wire.WireError):
            wire.decode(b"[" * depth + b"]" * depth, b"")


tensor_heads = st.fixed_dictionaries(
    {
        "$": st.just("tensor"),
        "dtype": st.sampled_from([*wire.DTYPES, "object", ""]),
        "shape": st.lists(st.integers(-3, 2**40), max_size=5),
        "at": st.integers(-1, 64),
        "grad": st.booleans(),
        "scattered": st.booleans(),
    }
)
kinds = ["tensor", "float", "dtype", "ref", "tuple", "dict", "foreign", "?"]
hostile = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | tensor_heads,
    lambda inner: (
        st.lists(inner, max_size=4) | st.fixed_dictionaries({"$": st.sampled_from(kinds), "is": inner, "key": inner})
    ),
    max_leaves=10,
)


frames = st.builds(
    lambda magic, header, payload, more, cut: (
        struct.pack(
            "<4sIQ", magic, len(json.dumps(header).encode()) + more[0], min(max(len(payload) + more[1], 0), 2**64 - 1)
        )
        + json.dumps(header).encode()
        + payload
    )[:cut],
    st.sampled_from([wire.MAGIC] * 4 + [b"SSL2"]),
    hostile,
    st.binary(max_size=64),
    st.sampled_from([(0, 0)] * 4 + [(1, 0), (2**31, 0), (0, 1), (0, -1), (0, 2**26), (0, 2**40), (0, 2**63)]),
    st.none() | st.integers(0, 300),
)


def header_is_safe(header: object, payload: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(json.dumps(header).encode(), payload)


def frame_is_safe(frame: bytes) -> None:
    a, b = socket.socketpair()
    with a, b:
        a.sendall(frame)
        a.shutdown(socket.SHUT_WR)
        with contextlib.suppress(wire.WireError):
            wire.receive(b, time.monotonic() + 20)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile, st.binary(max_size=64))
def test_hostile_headers_are_values_or_wire_errors(header: object, payload: bytes) -> None:
    header_is_safe(header, payload)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_wire_errors(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(data, b"")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames)
def test_hostile_frames_are_values_or_wire_errors(frame: bytes) -> None:
    frame_is_safe(frame)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def bounded() -> Iterator[None]:
    """All cases together: no more memory than a few frames of the largest size, however much the headers promise."""
    before = peak_mb()
    yield
    assert peak_mb() - before < 4 * wire.MAX_PAYLOAD / 2**20


ten_thousand = settings(
    max_examples=10_000,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
@ten_thousand
@given(hostile, st.binary(max_size=64))
def test_ten_thousand_hostile_headers(header: object, payload: bytes) -> None:
    header_is_safe(header, payload)


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
@ten_thousand
@given(frames)
def test_ten_thousand_hostile_frames(frame: bytes) -> None:
    frame_is_safe(frame)
