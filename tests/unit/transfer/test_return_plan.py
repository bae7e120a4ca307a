"""What returns, by policy and kind of file; how contents are had; what a foreign or failed return means."""

from __future__ import annotations

import os
import struct

import pytest

from rch.errors import DiskFull, ProductsUnverified, TransferFault, Unreachable
from rch.project.model import Manifest, Root
from rch.transfer import BuildDir, Delta, HeldIndex, plan_return, recall_push, remember_push
from rch.transfer.machine import is_foreign, machine_of, this_machine
from rch.transfer.returns import NothingHere
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes

KEY = "0123456789abcdef"
ROOT = Root("/r", "/r", KEY, ("target", "build"))


def entry(path, mode=0o644, mtime=1, content="x"):
    return Entry(path, "f", mode, len(content), mtime, hash_bytes(content.encode()))


def directory(path, mtime=1):
    return Entry(path, "d", 0o755, 0, mtime, "")


CARGO = [
    directory("target"),
    directory("target/debug"),
    entry("target/debug/.cargo-lock"),
    directory("target/debug/.fingerprint"),
    entry("target/debug/.fingerprint/app"),
    directory("target/debug/deps"),
    entry("target/debug/deps/app-1", 0o755),
    entry("target/debug/app", 0o755),
    entry("target/debug/app.d"),
    entry("target/debug/libapp.rlib"),
    directory("target/debug/examples"),
    entry("target/debug/examples/demo", 0o755),
    directory("target/criterion"),
    entry("target/criterion/report.html"),
]
MESON = [
    directory("build"),
    entry("build/build.ninja"),
    entry("build/app", 0o755),
    entry("build/libx.so.1.2"),
    Entry("build/libx.so", "l", 0, 0, 1, "libx.so.1.2"),
    entry("build/x.o"),
]


def planned(entries, policy, *, held=None, patterns=()):
    held = held or HeldIndex(KEY, "w", "g")
    delta = Delta("h", complete=False, entries=tuple(entries))
    plan = plan_return(delta, held, Manifest({}, "", 0), ROOT, NothingHere(), policy, extra_patterns=patterns)
    return {p.entry.path for p in plan.placings if p.entry.type != "d"}, plan


class TestThePolicy:
    def test_full_returns_everything(self):
        files, _ = planned(CARGO, BuildDir.FULL)
        assert files == {e.path for e in CARGO if e.type == "f"}

    def test_none_returns_nothing(self):
        files, plan = planned(CARGO, BuildDir.NONE)
        assert files == set()
        assert plan.empty

    def test_outputs_of_cargo_are_the_uplifted_files_and_the_examples(self):
        files, plan = planned(CARGO, BuildDir.OUTPUTS)
        assert files == {
            "target/debug/app",
            "target/debug/app.d",
            "target/debug/libapp.rlib",
            "target/debug/examples/demo",
        }
        assert {p.entry.path for p in plan.placings if p.entry.type == "d"} == {
            "target",
            "target/debug",
            "target/debug/examples",
        }

    def test_outputs_of_others_are_executables_libraries_and_links_to_them(self):
        files, _ = planned(MESON, BuildDir.OUTPUTS)
        assert files == {"build/app", "build/libx.so.1.2", "build/libx.so"}

    def test_a_22_extra_patterns_return_whatever_the_policy_says(self):
        files, _ = planned(CARGO, BuildDir.NONE, patterns=["target/criterion/**"])
        assert files == {"target/criterion/report.html"}

    @pytest.mark.parametrize("policy", BuildDir)
    def test_ar_06_the_tree_returns_under_every_policy(self, policy):
        files, _ = planned([entry("Cargo.lock"), entry("report.xml")], policy)
        assert files == {"Cargo.lock", "report.xml"}

    def test_a_clone_that_the_job_made_in_its_build_directory_is_a_product(self):
        rows = [directory("build"), directory("build/dep"), directory("build/dep/.git"), entry("build/dep/.git/HEAD")]
        assert planned(rows, BuildDir.FULL)[0] == {"build/dep/.git/HEAD"}

    def test_ar_08_a_directory_whose_name_only_begins_like_the_build_directory_is_tree(self):
        assert planned([directory("target-evil"), entry("target-evil/x")], BuildDir.NONE)[0] == {"target-evil/x"}


class TestTheOrder:
    def test_ar_11_is_the_workers_write_order_also_for_what_an_older_job_made(self):
        old = [entry("target/out", content="1"), entry("target/.fresh", content="1")]
        held = HeldIndex(KEY, "w", "g", {e.path: e for e in old})
        plan = planned([entry("target/other")], BuildDir.FULL, held=held)[1]
        assert [p.entry.path for p in plan.placings] == ["target/out", "target/.fresh", "target/other"]

    def test_of_a_hard_linked_file_all_names_come_from_one_content(self):
        rows = [entry(p, 0o755)._replace(group=0) for p in ("target/deps/app", "target/app")]
        plan = planned(rows, BuildDir.FULL)[1]
        assert len(plan.placings) == 2
        assert [e.path for e in plan.to_fetch] == ["target/deps/app"]
        assert plan.size_bytes == 1

    def test_pm_05_one_file_has_one_time_and_it_is_the_pushers(self):
        rows = [entry("src.c", mtime=5)._replace(group=0), entry("target/src.c", mtime=900)._replace(group=0)]
        manifest = Manifest({"src.c": entry("src.c", mtime=5)}, "", 0)
        delta = Delta("h", complete=False, entries=tuple(rows))
        plan = plan_return(delta, HeldIndex(KEY, "w", "g"), manifest, ROOT, NothingHere(), BuildDir.FULL)
        assert {p.entry.mtime_ns for p in plan.placings} == {5}


class TestContents:
    def test_a_file_that_lies_here_under_another_name_is_not_fetched(self, world, put):
        world.write("big", "b" * 200_000)
        world.push()
        world.work(lambda tree: put(tree, "target/copy", "b" * 200_000))
        world.worker().answers["delta"] = lambda a, b: ({**a, "bodies": []}, b"")
        returned = world.fetch()
        assert (returned.files, returned.size_bytes) == (0, 0)
        assert world.worker().count("get") == 0
        assert (world.here / "target/copy").read_text() == "b" * 200_000

    def test_sp_11_more_than_one_mebibyte_comes_by_rsync_and_less_inside_the_answer(self, world, put):
        world.write("a", "1")
        world.run(lambda tree: put(tree, "target/small", "s" * 1000))
        assert world.worker().received_by_rsync == []
        returned = world.run(lambda tree: put(tree, "target/large", "l" * (INLINE_LIMIT + 1)))
        assert world.worker().received_by_rsync == ["target/large"]
        assert (returned.files, returned.processes) == (1, 1)

    def test_what_the_answer_had_no_room_for_is_asked_for(self, world, put):
        world.write("a", "1")
        world.push()
        world.work(lambda tree: [put(tree, f"target/{n}", str(n) * 300_000) for n in range(3)])
        world.worker().answers["delta"] = lambda a, b: ({**a, "bodies": []}, b"")
        returned = world.fetch()
        assert returned.files == 3
        assert world.worker().count("get") == 1
        assert (world.here / "target/2").read_text() == "2" * 300_000

    @pytest.mark.parametrize("error", [TransferFault, Unreachable])
    @pytest.mark.parametrize("op", ["delta", "get", "receive_files"])
    def test_a_25_a_failed_return_is_tried_three_times_and_then_undelivered(self, world, put, look, op, error):
        size = INLINE_LIMIT + 1 if op == "receive_files" else 10
        world.write("a", "1")
        world.push()
        world.work(lambda tree: put(tree, "target/x", "x" * size))
        world.worker().answers["delta"] = lambda a, b: ({**a, "bodies": []}, b"")
        before = look(world.here)
        world.worker().faults[op] = [error("gone"), error("gone"), error("gone")]
        pauses = []
        with pytest.raises(ProductsUnverified) as raised:
            world.fetch(pause=pauses.append)
        assert pauses == [1.0, 2.0]
        assert raised.value.hint == "rch fetch job-1"
        assert look(world.here) == before
        world.worker().faults[op] = [error("gone"), error("gone")]
        world.fetch()
        assert (world.here / "target/x").read_text() == "x" * size

    @pytest.mark.parametrize("op", ["delta", "get"])
    def test_a_25_a_lost_channel_is_told_at_once_because_the_lock_went_with_it(self, world, put, look, op):
        world.write("a", "1")
        world.push()
        world.work(lambda tree: put(tree, "target/x", "x"))
        world.worker().answers["delta"] = lambda a, b: ({**a, "bodies": []}, b"")
        world.worker().faults[op] = [Unreachable("gone")]
        world.worker().is_connected = False
        before, pauses = look(world.here), []
        with pytest.raises(Unreachable):
            world.fetch(pause=pauses.append)
        assert pauses == []
        assert look(world.here) == before
        world.worker().is_connected = True
        world.fetch()
        assert (world.here / "target/x").read_text() == "x"

    def test_a_full_disk_here_leaves_everything_as_it_was(self, world, put, look, monkeypatch):
        world.write("a", "1")
        world.run(lambda tree: put(tree, "target/x", "old"))
        world.push()
        world.work(lambda tree: put(tree, "target/x", "new"))
        before = look(world.here)

        def full(*_a, **_k):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("rch.transfer.staging.Staging.keep", full)
        with pytest.raises(DiskFull) as raised:
            world.fetch()
        assert raised.value.host == "here"
        assert look(world.here) == before

    def test_se_08_staging_is_no_place_that_the_caller_can_write(self, world, put):
        world.write("a", "1")
        world.push()
        world.work(lambda tree: put(tree, "target/x", "x"))
        modes = []

        def hook(moment):
            if moment == "surveyed":
                directory = next((world.base / "state/roots" / KEY).glob("staging-*"))
                modes.append(directory.stat().st_mode & 0o777)
                modes.extend(p.stat().st_mode & 0o777 for p in directory.iterdir() if p.is_file())

        world.fetch(hook=hook)
        assert modes[0] == 0o700
        assert set(modes[1:]) == {0o600}


class TestARestart:
    def test_what_a_return_needs_survives_the_daemon(self, world, put):
        world.ignored.add("none")
        world.write("a", "1")
        os.link(world.here / "a", world.here / "b")
        pushed = world.push()
        remember_push(world.state, world.job, world.root, pushed.manifest, pushed.held)
        world.work(lambda tree: put(tree, "target/x", "x"))
        world.write("a", "edited since")
        manifest, held = recall_push(world.state, world.job, world.root)
        assert {p: e[:6] for p, e in manifest.entries.items()} == {p: e[:6] for p, e in pushed.manifest.entries.items()}
        assert manifest.taken_ns == pushed.manifest.taken_ns
        assert held == pushed.held
        world.pushed = type(pushed)(manifest, held)
        returned = world.fetch()
        assert returned.capped
        assert (world.here / "target/x").read_text() == "x"
        assert (world.here / "a").read_text() == "edited since"

    def test_what_is_not_known_any_more_is_undelivered(self, world):
        with pytest.raises(ProductsUnverified):
            recall_push(world.state, "job-9", world.root)


def elf(machine, kind=2, order="<"):
    head = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + b"\0" * 9
    return head + struct.pack(order + "HH", kind, machine)


class TestTheMachine:
    @pytest.mark.parametrize(
        ("header", "made_for"),
        [
            (elf(62), "linux x86_64"),
            (elf(183, kind=3), "linux aarch64"),
            (elf(22, order=">"), "linux s390x"),
            (elf(999), "linux ELF machine 999"),
            (elf(62, kind=1), None),
            (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C) + b"\0" * 12, "darwin aarch64"),
            (b"#!/bin/sh\n", None),
            (b"\x7fELF", None),
            (b"", None),
        ],
    )
    def test_of_an_executable_is_read_from_its_header(self, header, made_for):
        assert machine_of(header) == made_for

    @pytest.mark.parametrize(
        ("path", "header", "foreign"),
        [
            ("target/debug/app", elf(62), False),
            ("target/debug/app", elf(3), False),  # -m32
            ("target/debug/app", elf(183), True),
            ("target/debug/app", b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x01000007), True),
            ("target/aarch64-unknown-linux-gnu/debug/app", elf(183), False),
            ("target/thumbv7em-none-eabihf/debug/app", elf(40), False),
        ],
    )
    def test_ar_05_of_another_system_is_foreign_unless_its_directory_says_it_was_asked_for(self, path, header, foreign):
        assert is_foreign(path, header, "linux x86_64") is foreign

    def test_ar_05_a_foreign_executable_places_nothing(self, world, look):
        ours = this_machine()
        other = elf(183 if "aarch64" not in ours else 62)

        def job(tree):
            (tree / "target").mkdir()
            (tree / "target/app").write_bytes(other)
            (tree / "target/app").chmod(0o755)

        world.write("a", "1")
        world.push()
        world.work(job)
        before = look(world.here)
        with pytest.raises(ProductsUnverified, match="not made for this machine"):
            world.fetch(machine="")
        assert look(world.here) == before

    def test_this_machines_own_interpreter_is_not_foreign(self):
        import sys

        with open(os.path.realpath(sys.executable), "rb") as stream:
            assert not is_foreign("python", stream.read(20), this_machine())
