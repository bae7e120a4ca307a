"""Keys and variables that tune the transfer of large files, as rsync is told them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def rsyncs(fresh: Any) -> Iterator[Any]:
    """A workstation that notes how rsync was called: what went over and what came back, option by option."""
    fake = fresh.top / "bin"
    fake.mkdir()
    log = fresh.top / "rsync.log"
    (fake / "rsync").write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {shutil.which("rsync")} "$@"\n')
    (fake / "rsync").chmod(0o755)
    fresh.env["PATH"] = f"{fake}:{fresh.env['PATH']}"
    fresh.start()
    fresh.makefile("head -c 3000000 /dev/urandom > product")

    def calls(**env: str) -> dict[str, set[str]]:
        log.write_text("")
        (fresh.project / "source").write_bytes(os.urandom(3_000_000))
        (fresh.project / "product").unlink(missing_ok=True)
        ended = fresh.exec("make", env=env)
        assert (ended.status, ended.where) == (0, "b"), ended.err
        found: dict[str, set[str]] = {"push": set(), "return": set()}
        for line in log.read_text().splitlines():
            words = line.split()
            found["push" if "--partial" in words else "return"] |= {w for w in words if w.startswith("--")}
        return found

    fresh.rsync_calls = calls
    return fresh


def test_compression_and_patience_are_those_of_the_files_and_the_variable_beats_them(rsyncs: Any) -> None:
    """transfer.compression_level, artifacts.compression_level, RCH_COMPRESSION, transfer.timeout_sec (A-18)."""

    def levels(**env: str) -> tuple[set[str], set[str]]:
        found = rsyncs.rsync_calls(**env)
        return tuple({w for w in found[way] if "level" in w or "timeout" in w} for way in ("push", "return"))  # type: ignore[return-value]  # two

    assert levels() == ({"--compress-level=3", "--timeout=300"}, {"--compress-level=1", "--timeout=300"})
    rsyncs.user("[transfer]\ncompression_level = 7\ntimeout_sec = 11\n[artifacts]\ncompression_level = 9\n")
    assert levels() == ({"--compress-level=7", "--timeout=11"}, {"--compress-level=9", "--timeout=11"})
    assert levels(RCH_COMPRESSION="12") == (
        {"--compress-level=12", "--timeout=11"},
        {"--compress-level=12", "--timeout=11"},
    )
    ended = rsyncs.exec("make", env={"RCH_COMPRESSION": "20"})
    assert (ended.where, ended.reason) == ("here", "bad-environment")
