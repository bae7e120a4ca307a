"""The codec that both ends share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rch import client_frames as wire
from rch.worker import protocol

ROOT = Path(__file__).resolve().parents[3]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class TestJson:
    @given(JSON)
    def test_is_the_json_that_everybody_else_reads_and_writes(self, value):
        assert json.loads(wire.dumps(value)) == value
        assert wire.loads(json.dumps(value).encode("ascii")) == value

    @given(st.binary())
    def test_carries_any_bytes_of_the_system(self, data):
        assert wire.raw(wire.loads(wire.dumps(wire.text(data)))) == data

    @pytest.mark.parametrize(
        "bad", [b"", b"{", b'{"a":', b"[1,]", b"nul", b'{"a":1} x', b"\xff", b'"\x01"', b"[" * 100_000]
    )
    def test_that_does_not_parse_is_a_frame_error_also_where_json_was_never_imported(self, bad):
        with pytest.raises(wire.FrameError):
            wire.loads(bad)
        code = (
            f"import sys; sys.path.append({str(ROOT)!r})\nfrom rch import client_frames as w\n"
            f"try: w.loads(bytes.fromhex({bad[:1000].hex()!r}))\nexcept w.FrameError: print('refused')"
        )
        out = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert out == "refused\n"

    def test_objects_are_asked_for_by_name(self):
        with pytest.raises(wire.FrameError):
            wire.load_object(b"[]")


class TestFrames:
    @given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.lists(st.integers(1, 50)))
    def test_come_out_as_they_went_in_however_they_are_cut(self, frames, cuts):
        data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
        reader = wire.FrameReader()
        got = []
        for size in [*cuts, len(data)]:
            got += reader.feed(data[:size])
            data = data[size:]
        assert got == frames

    def test_that_are_too_long_are_refused_by_both_sides(self):
        with pytest.raises(wire.FrameError):
            wire.frame(1, bytes(wire.PAYLOAD_MAX + 1))
        with pytest.raises(wire.FrameError):
            wire.FrameReader().feed(wire.HEADER.pack(16, wire.PAYLOAD_MAX + 1))

    @given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=200)), max_size=6))
    def test_log_frames_are_those_of_the_worker(self, frames):
        data = b"".join(protocol.log_frame(stream, payload, 7) for stream, payload in frames)
        assert wire.log_frames(data) == frames == [(s, p) for s, _, p in protocol.log_frames(data)]

    def test_the_layout_of_a_log_frame_is_the_workers(self):
        assert wire.LOG_HEADER.format == protocol.LOG_HEADER.format

    @pytest.mark.parametrize("cut", [1, 15, 17, 20])
    def test_log_frames_that_are_cut_are_refused(self, cut):
        with pytest.raises(wire.FrameError):
            wire.log_frames(protocol.log_frame(1, b"hello", 7)[:cut])


def test_what_others_sent_cannot_steer_a_terminal_or_fill_it():
    assert wire.printable("a\x1b]0;evil\x07b\r\nc\x9b2J\u202ed") == "a?]0;evil?b c?2J?d"
    assert len(wire.printable("x" * 10_000)) == 2000
