"""The push: by explicit list, only what differs, deletions too, and the tree that was scanned (SP-02 to SP-12)."""

from __future__ import annotations

import errno
import os
import shutil
import time

import pytest

from rch.errors import DiskFull, NotOffloadable, TransferFault, Unreachable, WorkerFault
from rch.project.model import Manifest, Root
from rch.transfer import BuildDir, HeldIndex, check_size, compression_level, plan_push
from rch.worker import _index
from rch.worker._apply import Application
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes

KEY = "0123456789abcdef"


def tree_of(world, look):
    return {p: e[1:6] for p, e in look(world.worker().tree).items()}


def tree_here(world, look):
    return {p: e[1:6] for p, e in look(world.here, skip=("target",)).items()}


class TestWhatIsSent:
    def test_sp_02_every_sort_of_file_arrives_as_it_is_here(self, world, look):
        world.write("plain", "x")
        world.write("run.sh", "#!/bin/sh", 0o755)
        world.write("spaces and\nnewline/ü", "x")
        (world.here / os.fsdecode(b"caf\xe9")).write_text("latin")
        (world.here / "empty").mkdir()
        (world.here / "inside").symlink_to("plain")
        (world.here / "outside").symlink_to("/etc/hostname")
        (world.here / "dangling").symlink_to("nowhere")
        os.link(world.here / "plain", world.here / "second name")
        world.push()
        assert tree_of(world, look) == tree_here(world, look)
        assert os.path.samefile(world.worker().tree / "plain", world.worker().tree / "second name")

    def test_a_hard_link_that_was_parted_here_is_parted_there(self, world):
        world.write("a", "x")
        os.link(world.here / "a", world.here / "b")
        world.push()
        os.unlink(world.here / "b")
        shutil.copy2(world.here / "a", world.here / "b")
        world.push()
        assert not os.path.samefile(world.worker().tree / "a", world.worker().tree / "b")

    def test_a_second_push_of_the_same_tree_sends_nothing(self, world):
        world.write("a", "x")
        world.push()
        pushed = world.push()
        assert (pushed.files, pushed.size_bytes, pushed.metadata, pushed.deletes, pushed.requests) == (0, 0, 0, 0, 0)
        assert world.worker().calls[-1][1]["roots"][0]["changes"] == []

    def test_sp_03_a_touched_file_is_sent_as_metadata_alone(self, world):
        path = world.write("a", "x")
        world.push()
        os.utime(path, ns=(1, time.time_ns()))
        pushed = world.push()
        assert (pushed.files, pushed.size_bytes, pushed.metadata) == (0, 0, 1)
        assert (world.worker().tree / "a").stat().st_mtime_ns == path.stat().st_mtime_ns

    def test_sp_03_an_edit_of_equal_size_and_time_is_sent(self, world):
        path = world.write("a", "1")
        times = path.stat().st_mtime_ns
        world.push()
        path.write_text("2")
        os.utime(path, ns=(times, times))
        assert world.push().files == 1
        assert (world.worker().tree / "a").read_text() == "2"

    def test_sp_09_only_what_is_shared_is_deleted_in_the_build_directory(self, world, put):
        world.write("a", "x")
        world.run(lambda tree: put(tree, "target/returned", "x"))
        world.work(lambda tree: put(tree, "target/private", "x"))
        (world.here / "target/returned").unlink()
        world.push()
        assert [p.name for p in (world.worker().tree / "target").iterdir()] == ["private"]

    def test_sp_09_what_a_lost_job_left_in_the_tree_is_gone_before_the_next_one(self, world, put):
        world.write("a", "x")
        world.push()
        world.work(lambda tree: (put(tree, "main.o", "torn"), put(tree, "target/warm", "x")))
        world.push()
        assert not (world.worker().tree / "main.o").exists()
        assert (world.worker().tree / "target/warm").exists()

    def test_an_old_product_that_is_put_back_keeps_its_old_time(self, world, put):
        """A failed return, then make again: the old object must not look newer than the source (stale link)."""
        world.write("main.c", "1")
        world.run(lambda tree: put(tree, "main.o", "object 1"))
        world.write("main.c", "2")
        world.push()
        world.work(lambda tree: put(tree, "main.o", "object 2"))
        # the return never came; main.o of 1 is sent back over main.o of 2
        world.push()
        there = world.worker().tree
        assert (there / "main.o").read_text() == "object 1"
        assert (there / "main.o").stat().st_mtime_ns == (world.here / "main.o").stat().st_mtime_ns
        assert (there / "main.o").stat().st_mtime_ns < (there / "main.c").stat().st_mtime_ns

    def test_a_lost_record_makes_the_build_directory_start_cold(self, world, put):
        world.write("a", "x")
        world.run(lambda tree: put(tree, "target/x", "x"))
        world.held().forget(world.state)
        world.push()
        assert not (world.worker().tree / "target").exists()

    def test_begun_afresh_the_build_directory_starts_cold_and_what_is_owed_stays_owed(self, world, put):
        world.write("a", "x")
        world.run(lambda tree: put(tree, "target/x", "x"))
        world.run(lambda tree: (tree / "target/x").unlink(), policy=BuildDir.NONE)
        world.worker().root.job_started("another")
        put(world.worker().tree, "target/y", "y")
        world.held().afresh().save(world.state)
        world.push()
        assert not (world.worker().tree / "target").exists()
        assert "target/x" in world.held().owed

    def test_a_12_reset_sends_everything_into_an_empty_tree(self, world, put, look):
        world.write("a", "x")
        world.run(lambda tree: put(tree, "target/x", "x"))
        put(world.worker().tree, "a", "tampered with")
        put(world.worker().tree, "unknown", "to anybody")
        pushed = world.push(reset=True)
        assert pushed.files == 1
        assert tree_of(world, look) == tree_here(world, look)

    def test_a_12_reset_of_a_large_tree_goes_by_rsync_and_survives_a_source_that_changes(self, world, look):
        world.write("big", "x" * (INLINE_LIMIT + 1))
        world.push()
        world.worker().before_send = lambda: world.write("big", "y" * (INLINE_LIMIT + 2))
        world.push(reset=True, rescan=world.manifest)
        assert tree_of(world, look) == tree_here(world, look)

    @pytest.mark.parametrize("before", ["file", "directory", "link"])
    @pytest.mark.parametrize("after", ["file", "directory", "link", "nothing"])
    def test_sp_12_a_path_that_changes_its_type_arrives(self, world, look, before, after):
        def make(kind):
            if kind == "file":
                world.write("x", "file")
            elif kind == "directory":
                world.write("x/y/z", "below")
            elif kind == "link":
                (world.here / "x").symlink_to("other")

        world.write("other", "1")
        make(before)
        world.push()
        if before == "directory":
            shutil.rmtree(world.here / "x")
        else:
            (world.here / "x").unlink()
        make(after)
        world.push()
        assert tree_of(world, look) == tree_here(world, look)

    def test_sp_12_a_file_where_the_worker_keeps_its_build_directory_takes_its_place(self, world, put):
        world.write("a", "x")
        world.run(lambda tree: put(tree, "target/private/x", "x"))
        manifest = world.manifest()
        entry = Entry("target", "f", 0o644, 1, 5, hash_bytes(b"x"))
        changed = Manifest({**manifest.entries, "target": entry}, "", manifest.taken_ns)
        plan = plan_push(changed, world.root, world.held(), lambda _p: True)
        assert plan.deletes == ("target/private/x", "target/private")
        assert entry in plan.contents


class TestHowItIsSent:
    def test_sp_11_up_to_one_mebibyte_goes_inside_the_request(self, world):
        world.write("a", "x" * INLINE_LIMIT)
        pushed = world.push()
        assert world.worker().sent_by_rsync == []
        assert pushed.requests == 0
        world.write("a", "y" * (INLINE_LIMIT + 1))
        world.write("b", "small")
        pushed = world.push()
        assert sorted(world.worker().sent_by_rsync) == ["a", "b"]
        assert (pushed.requests, pushed.processes) == (1, 1)

    def test_sp_12_an_abort_at_any_step_is_repaired_by_the_next_push(self, world, look):
        for fault in ("send_files", "sync", "index"):
            world.write("a", fault * 300_000)
            world.write("b", fault)
            worker = world.worker()
            if fault == "index":
                worker.root.job_started("somebody")
            error = Unreachable if fault != "send_files" else TransferFault
            worker.faults[fault] = [error("gone") for _ in range(3)]
            with pytest.raises(error):
                world.push()
            worker.faults.clear()
            world.push()
            there, here = tree_of(world, look), tree_here(world, look)
            assert {p: (e[0], e[4]) for p, e in there.items()} == {p: (e[0], e[4]) for p, e in here.items()}

    def test_one_that_breaks_while_it_is_applied_leaves_the_workers_index_as_it_was(self, world, monkeypatch):
        world.write("a", "x")
        world.push()

        def breaks(application):
            application.rows.clear()
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(Application, "run", breaks)
        world.write("b", "x")
        with pytest.raises(WorkerFault):
            world.push()
        monkeypatch.undo()
        assert set(_index.load(world.worker().root.directory + "/index")[1]) == {"a"}

    def test_a_bulk_transfer_is_tried_three_times_with_growing_pauses(self, world):
        from rch.transfer._retry import with_retries

        pauses = []

        def fail():
            raise TransferFault("no")

        with pytest.raises(TransferFault):
            with_retries(fail, (TransferFault,), pauses.append)
        assert pauses == [1.0, 2.0]
        with pytest.raises(DiskFull):
            with_retries(lambda: (_ for _ in ()).throw(DiskFull("full")), (TransferFault,), pauses.append)
        assert pauses == [1.0, 2.0]
        world.write("a", "x" * (INLINE_LIMIT + 1))
        world.worker().faults["send_files"] = [TransferFault("no"), Unreachable("no")]
        world.push()
        assert (world.worker().tree / "a").stat().st_size == INLINE_LIMIT + 1

    def test_another_error_of_the_worker_ends_the_push(self, world):
        world.write("a", "x" * (INLINE_LIMIT + 1))
        world.worker().faults["sync"] = [WorkerFault("no", code="internal")]
        with pytest.raises(WorkerFault):
            world.push()

    def test_content_of_a_made_up_file_comes_from_its_source(self, world):
        world.write("a", "1")
        head = world.base / "elsewhere"
        for content in ("ref: main", "r" * (INLINE_LIMIT + 1)):
            head.write_text(content)
            manifest = world.manifest()
            entry = Entry(".git/HEAD", "f", 0o644, len(content), 5, hash_bytes(content.encode()))
            entries = {**manifest.entries, ".git": Entry(".git", "d", 0o755, 0, 5, ""), ".git/HEAD": entry}
            made = Manifest(entries, "", manifest.taken_ns, sources={".git/HEAD": str(head)})
            world.manifest = lambda made=made: made
            pushed = world.push()
            assert (world.worker().tree / ".git/HEAD").read_text() == content
            assert not pushed.unstable  # the real .git is no part of the manifest
            del world.manifest
            (world.here / ".git").mkdir(exist_ok=True)
            pushed.held.save(world.state)


class TestASourceThatChangesMeanwhile:
    def test_sp_04_is_sent_again(self, world):
        world.write("a", "1")
        world.write("b", "x" * (INLINE_LIMIT + 1))
        saves = iter(["2"])
        world.worker().before_send = lambda: [world.write("a", text) for text in saves]
        pushed = world.push(rescan=world.manifest)
        assert not pushed.unstable
        assert (world.worker().tree / "a").read_text() == (world.here / "a").read_text()
        assert pushed.manifest.entries["a"].content == hash_bytes((world.here / "a").read_bytes())

    def test_sp_04_counts_also_when_it_is_none_of_the_files_being_sent(self, world):
        world.write("a", "1")
        world.push()
        world.write("b", "x" * (INLINE_LIMIT + 1))
        world.worker().before_send = lambda: world.write("a", "2")
        assert world.push().unstable
        world.write("b", "y" * (INLINE_LIMIT + 1))
        saves = iter(["3"])
        world.worker().before_send = lambda: [world.write("a", text) for text in saves]
        assert not world.push(rescan=world.manifest).unstable
        assert (world.worker().tree / "a").read_text() == "3"

    def test_sp_03_an_edit_of_equal_size_with_its_time_put_back_is_noticed(self, world):
        from rch.transfer import changed_since

        path = world.write("a", "1")
        world.settle()
        manifest = world.manifest()
        times = path.stat().st_mtime_ns
        path.write_text("2")
        os.utime(path, ns=(times, times))
        assert changed_since(manifest, world.root) == ["a"]
        path.write_text("1")
        os.utime(path, ns=(times, times))
        assert changed_since(manifest, world.root) == []

    def test_sp_04_makes_the_job_unstable_when_it_never_holds_still(self, world):
        world.write("a", "0")
        world.write("b", "x" * (INLINE_LIMIT + 1))
        count = iter(range(100))

        def rescan():
            manifest = world.manifest()
            world.write("a", f"saved {next(count)}")
            return manifest

        world.worker().before_send = lambda: world.write("a", f"saved {next(count)}")
        pushed = world.push(rescan=rescan)
        assert pushed.unstable

    def test_sp_04_is_never_sent_as_something_that_no_scan_saw(self, world):
        """A file of the list changes under rsync: the worker's hash finds it; in the end a copy is sent."""
        world.write("b", "x" * (INLINE_LIMIT + 1))
        count = iter(range(100))
        world.worker().before_send = lambda: world.write("b", str(next(count)) * (INLINE_LIMIT + 1))
        pushed = world.push()
        assert pushed.unstable
        there = (world.worker().tree / "b").read_text()
        assert set(there) == {"0"}
        assert pushed.manifest.entries["b"].content == hash_bytes(there.encode())
        assert pushed.manifest.sources == {}

    def test_sp_04_whose_file_vanishes_meanwhile_arrives_without_it(self, world):
        world.write("a", "1")
        gone = world.write("b", "x" * (INLINE_LIMIT + 1))
        world.worker().before_send = lambda: gone.unlink(missing_ok=True)
        pushed = world.push()
        assert pushed.unstable
        assert [p.name for p in world.worker().tree.iterdir()] == ["a"]

    def test_sp_04_a_new_file_and_a_deleted_one_are_noticed(self, world):
        from rch.transfer import changed_since

        world.write("d/a", "1")
        world.write("d/b", "1")
        world.settle()
        manifest = world.manifest()
        assert changed_since(manifest, world.root) == []
        world.write("d/new", "1")
        (world.here / "d/b").unlink()
        world.write("top", "1")
        world.write("target/x", "1")
        assert sorted(changed_since(manifest, world.root)) == ["d/b", "d/new", "top"]

    def test_sp_04_mode_type_and_link_changes_are_noticed(self, world):
        from rch.transfer import changed_since

        world.write("mode", "1")
        world.write("type", "1")
        (world.here / "link").symlink_to("a")
        world.settle()
        manifest = world.manifest()
        (world.here / "mode").chmod(0o755)
        (world.here / "type").unlink()
        (world.here / "type").mkdir()
        times = os.lstat(world.here / "link").st_mtime_ns
        (world.here / "link").unlink()
        (world.here / "link").symlink_to("b")
        os.utime(world.here / "link", ns=(times, times), follow_symlinks=False)
        assert sorted(changed_since(manifest, world.root)) == ["link", "mode", "type"]


def plan_with(sizes):
    entries = {
        f"f{n}": Entry(f"f{n}", "f", 0o644, size, 1, hash_bytes(str(n).encode())) for n, size in enumerate(sizes)
    }
    root = Root("/r", "/r", KEY)
    return plan_push(Manifest(entries, "", 0), root, HeldIndex(KEY, "w"), lambda _p: False), root


class TestLimits:
    def test_a_17_a_push_that_is_too_large_names_size_limit_and_the_five_largest(self):
        plan, root = plan_with([1_000_000 * n for n in range(1, 8)])
        check_size(plan, 28_000_000, root)
        with pytest.raises(NotOffloadable) as raised:
            check_size(plan, 27_999_999, root)
        assert raised.value.code == "too-large"
        text = raised.value.message
        assert "28.0 MB" in text
        assert [name for name in ("f6", "f5", "f4", "f3", "f2", "f1") if name in text] == ["f6", "f5", "f4", "f3", "f2"]

    @pytest.mark.parametrize(
        ("setting", "more", "level"),
        [
            (7, {}, 7),
            (7, {"loopback": True}, 7),
            ("auto", {"loopback": True, "mbit_s": 10.0}, 0),
            ("auto", {}, 3),
            ("auto", {"direction": "return"}, 1),
            ("auto", {"mbit_s": 1000.0, "cpu_score": 100.0}, 1),
            ("auto", {"mbit_s": 400.0, "cpu_score": 100.0}, 2),
            ("auto", {"mbit_s": 10.0, "cpu_score": 100.0}, 9),
            ("auto", {"mbit_s": 200.0, "cpu_score": 50.0}, 2),
            ("auto", {"mbit_s": 200.0, "cpu_score": None}, 5),
        ],
    )
    def test_a_18_the_level_follows_link_and_processor(self, setting, more, level):
        arguments = {"direction": "push", "mbit_s": None, "cpu_score": None, "loopback": False, **more}
        assert compression_level(setting, **arguments) == level

    def test_a_19_a_large_push_is_one_stream_and_arrives_whole(self, world, look):
        for n in range(6):
            world.write(f"f{n}", str(n) * 400_000)
        pushed = world.push()
        assert pushed.processes == 1
        assert tree_of(world, look) == tree_here(world, look)
