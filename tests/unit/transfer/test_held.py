"""The record of what a worker holds: kept whole or not at all, quick, private."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rch.transfer import Delta, HeldIndex
from rch.transfer.held import remember_tree_paths, shared_tree_paths
from rch.worker.protocol import Entry, hash_bytes

KEY = "0123456789abcdef"

names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=8)
entries = st.builds(
    lambda path, kind, mode, size, mtime, content, group: Entry(
        path,
        kind,
        0 if kind == "l" else mode,
        size if kind == "f" else 0,
        mtime,
        hash_bytes(content.encode()) if kind == "f" else content if kind == "l" else "",
        group if kind == "f" else None,
    ),
    names.filter(lambda n: n not in (".", "..")),
    st.sampled_from("fdl"),
    st.integers(0, 0o777),
    st.integers(0, 2**60),
    st.integers(-(2**62), 2**62),
    names,
    st.none() | st.integers(0, 5),
)


class TestTheRecord:
    @given(
        rows=st.lists(entries, max_size=20, unique_by=lambda e: e.path),
        owed=st.lists(entries, max_size=3),
        data=st.data(),
    )
    def test_comes_back_as_it_was_order_included(self, tmp_path_factory, rows, owed, data):
        paths = [e.path for e in rows]
        some = st.sets(st.sampled_from(paths)) if paths else st.just(set())
        held = HeldIndex(
            KEY,
            "w/1 ü",
            data.draw(st.none() | st.just("g")),
            {e.path: e for e in rows},
            frozenset(data.draw(some)),
            frozenset(data.draw(some)),
            {e.path: e for e in owed},
            data.draw(st.booleans()),
        )
        state = tmp_path_factory.mktemp("state")
        held.save(str(state))
        again = HeldIndex.load(str(state), KEY, "w/1 ü")
        assert again == held
        assert list(again.entries) == list(held.entries)

    def test_names_that_are_no_utf_8_come_back(self, tmp_path):
        held = HeldIndex(KEY, "w", "g", {"caf\udce9": Entry("caf\udce9", "l", 0, 0, 1, "x\udcff")})
        held.save(str(tmp_path))
        assert HeldIndex.load(str(tmp_path), KEY, "w") == held

    @pytest.mark.parametrize(
        "damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", lambda d: d[:40] + b"X" + d[41:]]
    )
    def test_that_is_damaged_counts_as_nothing_known(self, tmp_path, damage):
        held = HeldIndex(KEY, "w", "g", {"a": Entry("a", "d", 0o755, 0, 1, "")}, frozenset({"a"}))
        held.save(str(tmp_path))
        path = tmp_path / "roots" / KEY / "held-w"
        path.write_bytes(damage(path.read_bytes()))
        assert HeldIndex.load(str(tmp_path), KEY, "w") == HeldIndex(KEY, "w")

    def test_of_another_worker_or_root_is_not_taken_for_this_one(self, tmp_path):
        held = HeldIndex(KEY, "w", "g")
        held.save(str(tmp_path))
        directory = tmp_path / "roots" / KEY
        os.rename(directory / "held-w", directory / "held-v")
        assert HeldIndex.load(str(tmp_path), KEY, "v").generation is None

    def test_is_private(self, tmp_path):
        HeldIndex(KEY, "w", "g").save(str(tmp_path / "state"))
        directory = tmp_path / "state" / "roots" / KEY
        assert stat.S_IMODE((directory / "held-w").stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert [p.name for p in directory.iterdir()] == ["held-w"]

    def test_of_50_000_paths_loads_well_within_a_second(self, tmp_path):
        rows = {
            f"src/{n // 100}/{n}": Entry(f"src/{n // 100}/{n}", "f", 0o644, n, n, hash_bytes(b""))
            for n in range(50_000)
        }
        HeldIndex(KEY, "w", "g", rows, frozenset(rows)).save(str(tmp_path))
        started = time.monotonic()
        held = HeldIndex.load(str(tmp_path), KEY, "w")
        assert time.monotonic() - started < 1.0  # measured: 0.09 s; ten times that, for a busy machine
        assert len(held.entries) == 50_000
        assert (tmp_path / "roots" / KEY / "held-w").stat().st_size < 6_000_000

    def test_that_lies_there_already_is_not_written_again(self, tmp_path):
        HeldIndex(KEY, "w", "g").save(str(tmp_path))
        path = tmp_path / "roots" / KEY / "held-w"
        held = HeldIndex.load(str(tmp_path), KEY, "w")
        inode = path.stat().st_ino
        held.save(str(tmp_path))
        assert path.stat().st_ino == inode
        replace(held, generation="h").save(str(tmp_path))
        assert HeldIndex.load(str(tmp_path), KEY, "w").generation == "h"


class TestADelta:
    def test_puts_what_was_written_last_at_the_end(self):
        held = HeldIndex(KEY, "w", "g", {p: Entry(p, "d", 0o755, 0, 1, "") for p in "abc"})
        after = held.apply_delta(
            Delta("h", complete=False, entries=(Entry("a", "d", 0o755, 0, 2, ""),), deletes=("b",))
        )
        assert list(after.entries) == ["c", "a"]
        assert after.generation == "h"

    def test_never_joins_its_hard_links_to_older_ones(self):
        def linked(path, group):
            return Entry(path, "f", 0o644, 1, 1, hash_bytes(b"x"), group)

        held = HeldIndex(KEY, "w", "g", {"a": linked("a", 0), "b": linked("b", 0)})
        after = held.apply_delta(Delta("h", complete=False, entries=(linked("c", 0), linked("d", 0))))
        groups = {p: e.group for p, e in after.entries.items()}
        assert groups["a"] == groups["b"] != groups["c"] == groups["d"]

    def test_that_is_complete_replaces_everything(self):
        held = HeldIndex(KEY, "w", "g", {"a": Entry("a", "d", 0o755, 0, 1, "")}, ordered=False)
        assert held.since is None
        after = held.apply_delta(Delta("h", complete=True, entries=(Entry("b", "d", 0o755, 0, 1, ""),)))
        assert list(after.entries) == ["b"]
        assert after.since == "h"


class TestReturnedTreePaths:
    def test_are_remembered_for_every_worker_while_they_exist(self, world, put):
        world.ignored.add("gen.log")
        world.write("a", "1")
        world.run(lambda tree: put(tree, "gen.log", "1"), "w1")
        assert shared_tree_paths(world.state, world.root) == {"gen.log"}
        world.push("w2")
        assert (world.worker("w2").tree / "gen.log").read_text() == "1"
        (world.here / "gen.log").unlink()
        remember_tree_paths(world.state, KEY, str(world.here), ["a"])
        assert shared_tree_paths(world.state, world.root) == {"a"}
