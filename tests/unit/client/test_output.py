"""``--output`` and ``--show-worker``."""

from __future__ import annotations

import time

import pytest
from fake_rchd import FakeRchd, Peer
from hypothesis import given
from hypothesis import strategies as st

from rch.client_output import HOLD_BYTES, HOLD_S, LineFilter

CARGO = b"""\
   Compiling app v0.1.0
    Building [=====>    ] 3/9: app
 Downloading crates
 50% done
warning: unused variable
error[E0308]: mismatched types
  --> src/main.rs:3:5
   | note  --> not at the start
error: could not compile
    Finished dev
     Running unittests
   Doc-tests app
test result: ok. 3 passed
plain text
"""


def kept(output: str, data: bytes, **how) -> list[bytes]:
    line_filter = LineFilter(output, **how)
    return (line_filter.feed(data) + line_filter.flush()).splitlines()


class TestWhatIsShown:
    def test_errors(self):
        assert [line.split()[0] for line in kept("errors", CARGO)] == [b"warning:", b"error[E0308]:", b"-->", b"error:"]

    def test_summary(self):
        assert [line.split()[0] for line in kept("summary", CARGO)] == [
            b"Compiling",
            b"Finished",
            b"Running",
            b"Doc-tests",
            b"test",
        ]

    def test_progress(self):
        assert [line.split()[0] for line in kept("progress", CARGO)] == [
            b"Compiling",
            b"Building",
            b"Downloading",
            b"50%",
        ]

    def test_colours_do_not_hide_a_line_and_are_kept(self):
        line = b"\x1b[1m\x1b[38;5;9mer\x1b[0mror\x1b[0m: bad\n"
        assert kept("errors", line) == [line.rstrip()]
        assert kept("errors", b"\x1b[1m  --> \x1b[0msrc\n") == [b"\x1b[1m  --> \x1b[0msrc"]

    def test_carriage_returns_stay(self):
        line_filter = LineFilter("progress")
        assert line_filter.feed(b"Building 1\rBuilding 2\r\n") == b"Building 1\rBuilding 2\r\n"

    def test_a_worker_stands_before_each_line(self):
        assert kept("all", b"one\ntwo\n", worker="css") == [b"[css] one", b"[css] two"]
        assert kept("errors", b"one\nerror: x\n", worker="css") == [b"[css] error: x"]

    @given(st.lists(st.binary(max_size=40)))
    def test_everything_passes_byte_for_byte_by_default(self, pieces):
        line_filter = LineFilter()
        got = b"".join([line_filter.feed(piece) for piece in pieces] + [line_filter.flush()])
        assert got == b"".join(pieces)

    @given(st.lists(st.binary(min_size=1, max_size=40)))
    def test_how_the_bytes_are_cut_does_not_matter_when_they_come_quickly(self, pieces):
        whole = LineFilter("summary", "w")
        cut = LineFilter("summary", "w")
        data = b"".join(pieces)
        assert b"".join([cut.feed(p) for p in pieces] + [cut.flush()]) == whole.feed(data) + whole.flush()


class TestALineThatDoesNotEnd:
    def test_is_judged_after_a_moment_and_what_follows_goes_the_same_way(self):
        line_filter = LineFilter("progress")
        assert line_filter.feed(b"Building a") == b""
        assert 0 < line_filter.wait_s() <= HOLD_S
        time.sleep(HOLD_S)
        assert line_filter.wait_s() == 0
        assert line_filter.flush() == b"Building a"
        assert line_filter.wait_s() is None
        assert line_filter.feed(b" bit\nother\n") == b" bit\n"
        line_filter.feed(b"quiet")
        assert line_filter.flush() == b""
        assert line_filter.feed(b" Building\n") == b""

    def test_is_judged_when_it_is_too_long_to_hold(self):
        line_filter = LineFilter("errors")
        assert len(line_filter.feed(b"error: " + b"x" * HOLD_BYTES)) > HOLD_BYTES


class TestTheOption:
    def run(self, client, *words: str):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"Compi"), (2, CARGO), (1, b"ling x\nnoise\nprompt"))
            peer.exit(101)

        with FakeRchd(client.state, script):
            return client.run(*words, "--", "cargo", "build")

    def test_filters_both_streams_apart_and_changes_no_status(self, client):
        result = self.run(client, "--output", "summary")
        assert (result.status, result.out) == (101, b"Compiling x\n")
        assert len(result.err.splitlines()) == 5

    def test_names_the_worker(self, client):
        result = self.run(client, "--show-worker")
        assert result.out == b"[css] Compiling x\n[css] noise\n[css] prompt"

    def test_is_off_unless_asked_for(self, client):
        result = self.run(client)
        assert (result.out, result.err.encode()) == (b"Compiling x\nnoise\nprompt", CARGO)

    @pytest.mark.parametrize("what", ["all", "progress"])
    def test_a_prompt_without_an_end_of_line_shows_at_once(self, client, what):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"Building? "))
            time.sleep(30)

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--show-worker", "--output", what, "--", "cargo", "build")
            assert process.stdout.read1(100) == b"[css] Building? "
            process.kill()
            process.wait()
            rchd.scripts.clear()
            for thread in rchd._threads:
                thread.join(0)
            rchd._threads.clear()
