"""Placement: all or as after an interrupted build, never torn, never Fresh over an old output (lessons AR-01, AR-11)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from rch.errors import TransferFault
from rch.project.builddirs import scan_build_dirs
from rch.project.statcache import stat_cache
from rch.transfer import BuildDir, ConflictKind, HeldIndex, record_placed, roll_forward
from rch.transfer.journal import Journal

KEY = "0123456789abcdef"
UNITS = [f"u{n}" for n in range(4)]


@pytest.fixture(params=["same mount", "another mount"])
def two_mounts(request, make_world, tmp_path):
    """The project beside the state directory, and the project on a file system of its own."""
    world = make_world(tmp_path)
    if request.param == "another mount":
        shm = Path("/dev/shm")
        if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a writable /dev/shm on a mount of its own, as every Linux CI machine has")
        world.here = shm / f"rch-{os.getpid()}-{tmp_path.name}"
        world.here.mkdir()
        request.addfinalizer(lambda: __import__("shutil").rmtree(world.here))
    return world


def compile_all(version):
    """A job that writes output before fingerprint, unit by unit, and removes a stale file and a directory."""

    def job(tree):
        for unit in UNITS:
            for name in (f"target/{unit}.out", f"target/{unit}.fresh"):
                target = tree / name
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    target.unlink()
                target.write_text(version * 1000)
        for stale in ("target/stale", "target/dir/in"):
            if (tree / stale).exists():
                (tree / stale).unlink()
        if version == "1":
            (tree / "target/stale").write_text("stale")
            (tree / "target/dir").mkdir()
            (tree / "target/dir/in").write_text("in")
        elif (tree / "target/dir").exists():
            (tree / "target/dir").rmdir()

    return job


def killed_at(world, moment):
    """Run the return in a child that is killed before step *moment*; True if it was."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(_name):
            nonlocal seen
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        try:
            world.fetch(hook=hook)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def assert_like_an_interrupted_build(here):
    for unit in UNITS:
        out, fresh = here / f"target/{unit}.out", here / f"target/{unit}.fresh"
        assert out.read_text() in ("1" * 1000, "2" * 1000)
        if fresh.read_text() == "2" * 1000:
            assert out.read_text() == "2" * 1000, "Fresh over an old output"


class TestAKilledDaemon:
    def test_ar_11_sigkill_at_every_step_never_leaves_fresh_over_old_and_is_completed(self, two_mounts, look):
        world = two_mounts
        world.write("src/a", "1")
        moment = 0
        while True:
            for held in Path(world.state).rglob("held-*"):
                held.unlink()
            world.run(compile_all("1"))
            world.write("src/a", "2")
            world.push()
            world.work(compile_all("2"))
            was_killed = killed_at(world, moment)
            assert_like_an_interrupted_build(world.here)
            results = roll_forward(world.state)
            assert all(r.complete for r in results)
            leftovers = [p for p in look(world.here) if ".rch-" in p]
            assert leftovers == []
            assert not Journal.exists(world.state, KEY)
            if results and results[0].placement.placed:
                assert_everything_is_version_two(world.here)
            if not was_killed:
                assert_everything_is_version_two(world.here)
                break
            world.run(compile_all("2"))
            assert_everything_is_version_two(world.here)
            world.write("src/a", "1")
            moment += 1
        assert moment > 2 * len(UNITS) + 3  # the loop went through all of the steps

    def test_ar_11_a_local_build_after_the_crash_is_not_overwritten_at_the_next_start(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.write("src/a", "2")
        world.push()
        world.work(compile_all("2"))
        assert killed_at(world, 9)  # in the middle of the renames
        compile_all("3")(world.here)
        (result,) = roll_forward(world.state)
        assert not result.complete
        assert "changed since" in result.why
        assert {(world.here / f"target/{u}.out").read_text() for u in UNITS} == {"3" * 1000}
        assert not Journal.exists(world.state, KEY)

    def test_ar_11_a_journal_of_another_directory_at_the_same_path_is_dropped(self, world):
        world.write("src/a", "1")
        world.push()
        world.work(compile_all("1"))
        assert killed_at(world, 3)  # before the first step
        world.here.rename(world.base / "moved")
        world.here.mkdir()
        (result,) = roll_forward(world.state)
        assert not result.complete
        assert list(world.here.iterdir()) == []

    def test_ar_11_a_damaged_journal_places_nothing(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.push()
        world.work(compile_all("2"))
        assert killed_at(world, 5)
        journal = Path(world.state, "roots", KEY, "journal")
        journal.write_bytes(journal.read_bytes()[:-3])
        (result,) = roll_forward(world.state)
        assert not result.complete
        assert "damaged" in result.why

    def test_ar_11_a_staged_file_torn_by_the_loss_of_power_is_not_placed(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.push()
        world.work(compile_all("2"))
        assert killed_at(world, 5)
        for staged in Path(world.state, "roots", KEY).glob("staging-*/put-*"):
            staged.write_text("")
        (result,) = roll_forward(world.state)
        assert not result.complete
        assert_like_an_interrupted_build(world.here)

    def test_ar_11_a_placed_file_torn_by_the_loss_of_power_is_removed(self, world, monkeypatch):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.push()
        world.work(compile_all("2"))
        assert killed_at(world, 9)
        torn = next(
            world.here / f"target/{u}.out" for u in UNITS if "2" in (world.here / f"target/{u}.out").read_text()
        )
        times = torn.stat().st_mtime_ns
        torn.write_text("")
        os.utime(torn, ns=(times, times))
        monkeypatch.setattr(sys.modules["rch.transfer.recovery"], "boot_id", lambda: "another boot")
        (result,) = roll_forward(world.state)
        assert not result.complete
        assert not torn.exists()  # absent is rebuilt, torn is not


def assert_everything_is_version_two(here):
    for unit in UNITS:
        assert (here / f"target/{unit}.out").read_text() == "2" * 1000
        assert (here / f"target/{unit}.fresh").read_text() == "2" * 1000
    assert not (here / "target/stale").exists()
    assert not (here / "target/dir").exists()


class TestTimes:
    def test_pm_03_times_of_files_links_and_directories_survive_to_the_nanosecond(self, two_mounts, look):
        world = two_mounts

        def job(tree):
            (tree / "target/sub").mkdir(parents=True)
            (tree / "target/sub/x").write_text("x")
            (tree / "target/link").symlink_to("sub/x")
            for path, ns in (("target/sub/x", 1_700_000_000_123_456_789), ("target/link", 1_700_000_000_000_000_001)):
                os.utime(tree / path, ns=(ns, ns), follow_symlinks=False)
            os.utime(tree / "target/sub", ns=(5, 1_600_000_000_999_999_999))
            os.utime(tree / "target", ns=(5, 1_600_000_000_999_999_998))

        world.write("src/a", "1")
        world.run(job)
        times = {p: e.mtime_ns for p, e in look(world.here).items()}
        assert times["target/sub/x"] == 1_700_000_000_123_456_789
        assert times["target/link"] == 1_700_000_000_000_000_001
        assert times["target/sub"] == 1_600_000_000_999_999_999
        assert times["target"] == 1_600_000_000_999_999_998

    def test_pm_04_an_edit_during_the_job_caps_the_returned_times_at_the_snapshot(self, world):
        world.write("src/a", "1")
        world.write("src/b", "1")
        world.push()
        world.work(compile_all("1"))
        world.write("src/b", "edited meanwhile")
        returned = world.fetch()
        assert returned.capped
        snapshot_ns = world.pushed.manifest.taken_ns
        assert (world.here / "target/u0.out").stat().st_mtime_ns == snapshot_ns
        assert (world.here / "src/b").stat().st_mtime_ns > snapshot_ns

    def test_pm_04_a_new_source_counts_as_an_edit(self, world):
        world.write("src/a", "1")
        world.push()
        world.work(compile_all("1"))
        world.write("src/new.rs", "1")
        assert world.fetch().capped

    def test_pm_04_a_change_of_an_ignored_directory_does_not_cap(self, world):
        world.write("src/a", "1")
        world.write("cache/x", "1")
        world.ignored.add("cache")
        world.settle()
        world.push()
        world.work(compile_all("1"))
        world.write("cache/y", "1")
        assert not world.fetch().capped

    def test_pm_04_the_command_does_not_end_before_its_newest_product_is_past(self, world):
        """A worker ahead by half a second: an edit right after the command must be newer than the products."""
        import time

        world.write("src/a", "1")
        world.push()

        def job(tree):
            compile_all("1")(tree)
            ahead = time.time_ns() + 500_000_000
            os.utime(tree / "target/u0.out", ns=(ahead, ahead))

        world.work(job)
        waits = []
        world.fetch(pause=waits.append)
        assert len(waits) == 1
        assert 0 < waits[0] < 0.6

    def test_pm_04_an_edit_while_placing_caps_too(self, world):
        world.write("src/a", "1")
        world.push()
        world.work(compile_all("1"))

        def hook(moment):
            if moment == "journal removed":
                world.write("src/a", "saved in this moment")

        returned = world.fetch(hook=hook)
        assert returned.capped
        assert (world.here / "target/u3.fresh").stat().st_mtime_ns == world.pushed.manifest.taken_ns

    def test_pm_05_a_bump_never_comes_back(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        edited = world.write("src/a", "2")
        os.utime(edited, ns=(10**18, 10**18))
        world.push()
        there = world.worker().tree / "src/a"
        assert there.stat().st_mtime_ns > 10**18  # the worker made it look new to the compiler
        world.work(compile_all("2"))
        world.fetch()
        assert edited.stat().st_mtime_ns == 10**18
        world.run(lambda tree: None)
        assert edited.stat().st_mtime_ns == 10**18

    def test_the_roots_own_time_shows_nothing_of_a_placement_below_it(self, two_mounts):
        world = two_mounts
        world.write("src/a", "1")
        world.run(compile_all("1"))
        os.utime(world.here, ns=(10**18, 10**18))
        world.run(compile_all("2"))
        assert world.here.stat().st_mtime_ns == 10**18


class TestConflicts:
    def test_ar_03_a_source_edited_here_meanwhile_is_kept_and_named(self, world, put):
        world.write("Cargo.lock", "1")
        world.write("src/a", "1")
        world.push()
        world.work(lambda tree: (put(tree, "Cargo.lock", "worker's"), put(tree, "gen", "generated")))
        world.write("Cargo.lock", "mine")
        returned = world.fetch()
        assert [(c.path, c.kind) for c in returned.conflicts] == [("Cargo.lock", ConflictKind.SOURCE)]
        assert not returned.repair_locally
        assert (world.here / "Cargo.lock").read_text() == "mine"
        assert (world.here / "gen").read_text() == "generated"

    def test_ar_03_the_kept_version_is_what_the_next_job_sees(self, world, put):
        world.write("Cargo.lock", "1")
        world.push()
        world.work(lambda tree: put(tree, "Cargo.lock", "worker's"))
        world.write("Cargo.lock", "mine")
        world.fetch()
        world.push()
        assert (world.worker().tree / "Cargo.lock").read_text() == "mine"

    def test_ar_03_an_edit_of_equal_size_with_its_time_put_back_is_still_an_edit(self, world, put):
        path = world.write("Cargo.lock", "1234")
        world.push()
        times = path.stat().st_mtime_ns
        world.work(lambda tree: put(tree, "Cargo.lock", "work"))
        path.write_text("mine")
        os.utime(path, ns=(times, times))
        returned = world.fetch()
        assert [c.path for c in returned.conflicts] == ["Cargo.lock"]
        assert path.read_text() == "mine"

    def test_ar_03_an_edit_at_the_last_moment_is_kept(self, world, put):
        world.write("Cargo.lock", "1")
        world.push()
        world.work(lambda tree: put(tree, "Cargo.lock", "worker's"))

        def hook(moment):
            if moment == "step 0":
                world.write("Cargo.lock", "mine")

        returned = world.fetch(hook=hook)
        assert [c.kind for c in returned.conflicts] == [ConflictKind.SOURCE]
        assert (world.here / "Cargo.lock").read_text() == "mine"

    def test_ar_03_the_same_edit_on_both_sides_is_no_conflict(self, world, put):
        world.write("Cargo.lock", "1")
        world.push()
        world.work(lambda tree: put(tree, "Cargo.lock", "2"))
        world.write("Cargo.lock", "2")
        assert world.fetch().conflicts == ()

    def test_ar_03_a_file_that_was_never_sent_is_not_overwritten_and_the_command_runs_here(self, world, put, look):
        world.ignored.add("dev.db")
        world.write("dev.db", "my data")
        world.write("src/a", "1")
        world.settle()
        world.push()
        world.work(lambda tree: (put(tree, "dev.db", "empty"), put(tree, "target/x", "x")))
        before = look(world.here)
        returned = world.fetch()
        assert returned.repair_locally
        assert [c.kind for c in returned.conflicts] == [ConflictKind.UNSENT]
        assert look(world.here) == before
        # from now on both sides talk of the same file
        world.push()
        assert (world.worker().tree / "dev.db").read_text() == "my data"

    def test_ar_03_a_build_directory_that_changed_under_the_return_means_a_run_here(self, world, look):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.write("src/a", "2")
        world.push()
        world.work(compile_all("2"))
        scanned = scan_build_dirs(world.root, stat_cache(world.state, KEY, "build"))
        world.write("target/u2.out", "rust-analyzer was here")
        before = look(world.here)
        returned = world.fetch(scan=lambda: scanned)
        assert returned.repair_locally
        assert look(world.here) == before

    def test_ar_03_a_change_that_only_its_stat_data_show_means_a_run_here_with_nothing_placed(self, world, look):
        world.write("src/a", "1")
        returned = world.run(compile_all("1"))
        tree, build = stat_cache(world.state, KEY), stat_cache(world.state, KEY, "build")
        record_placed(returned.placement, world.root, world.pushed.manifest, tree=tree, build=build)
        build.save()
        world.write("src/a", "2")
        world.push()
        world.work(compile_all("2"))
        scanned = scan_build_dirs(world.root, stat_cache(world.state, KEY, "build"))
        world.write("target/u2.out", "rust-analyzer was here")
        before = look(world.here)
        returned = world.fetch(scan=lambda: scanned)
        assert [c.path for c in returned.conflicts] == ["target/u2.out"]
        assert look(world.here) == before

    def test_the_time_of_one_name_is_not_set_through_another(self, world, put):
        """A file that has two names here and two files there: the names part, each with its own time."""
        world.write("a", "same")
        os.link(world.here / "a", world.here / "b")
        world.push()

        def job(tree):
            put(tree, "b", "same", 0o755)
            os.utime(tree / "b", ns=(5, 1_600_000_000_000_000_005))

        times = (world.here / "a").stat().st_mtime_ns
        world.work(job)
        world.fetch()
        assert (world.here / "b").stat().st_mtime_ns == 1_600_000_000_000_000_005
        assert (world.here / "b").stat().st_mode & 0o777 == 0o755
        assert (world.here / "a").stat().st_mtime_ns == times
        assert (world.here / "a").stat().st_mode & 0o777 != 0o755

    def test_ar_03_a_build_directory_that_changes_between_two_renames_stops_there(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.write("src/a", "2")
        world.push()
        world.work(compile_all("2"))

        def hook(moment):
            if moment == "step 4":
                world.write("target/u2.out", "rust-analyzer was here")

        returned = world.fetch(hook=hook)
        assert returned.repair_locally
        assert (world.here / "target/u2.out").read_text() == "rust-analyzer was here"
        assert (world.here / "target/u3.fresh").read_text() == "1" * 1000

    def test_a_directory_that_the_job_removed_stays_while_it_holds_files_of_ours(self, world):
        import shutil

        world.ignored.add("mine")
        world.write("gen/a", "1")
        world.write("gen/mine", "1")
        world.write("src/a", "1")
        world.push()
        world.work(lambda tree: shutil.rmtree(tree / "gen"))
        world.fetch()
        assert [p.name for p in (world.here / "gen").iterdir()] == ["mine"]

    def test_se_08_a_root_replaced_since_its_proof_gets_nothing(self, world, put):
        from rch.errors import ProductsUnverified

        world.write("src/a", "1")
        world.push()
        world.work(compile_all("1"))
        status = world.here.stat()
        with pytest.raises(ProductsUnverified, match="not the directory any more"):
            world.fetch(identity=(status.st_dev, status.st_ino + 1))
        assert not (world.here / "target").exists()

    def test_ar_08_a_link_put_in_the_way_here_is_not_followed(self, world):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.push()
        world.work(compile_all("2"))
        outside = world.base / "outside"
        scanned = scan_build_dirs(world.root, stat_cache(world.state, KEY, "build"))
        (world.here / "target").rename(outside)
        (world.here / "target").symlink_to(outside)
        returned = world.fetch(scan=lambda: scanned)
        assert returned.repair_locally
        assert (outside / "u0.out").read_text() == "1" * 1000


class TestRecords:
    def test_a_failed_placement_leaves_the_record_as_it_was(self, world, monkeypatch):
        world.write("src/a", "1")
        world.run(compile_all("1"))
        world.write("src/a", "2")
        world.push()
        before = world.held()
        world.work(compile_all("2"))
        monkeypatch.setattr(
            "rch.transfer.delivery.place",
            lambda *a, **k: (_ for _ in ()).throw(TransferFault("no", direction="return")),
        )
        from rch.errors import ProductsUnverified

        with pytest.raises(ProductsUnverified):
            world.fetch()
        assert world.held() == before

    def test_ar_01_a_return_asked_for_twice_is_the_same_return(self, world, look):
        world.write("Cargo.lock", "1")
        world.push()
        world.work(lambda tree: (compile_all("1")(tree), (tree / "Cargo.lock").write_text("2")))
        first = world.fetch()
        after = look(world.here)
        second = world.fetch()
        assert first.conflicts == second.conflicts == ()
        assert look(world.here) == after
        assert second.processes == 0

    def test_what_was_placed_need_not_be_read_again(self, world, monkeypatch):
        world.write("src/a", "1")
        returned = world.run(compile_all("1"))
        tree, build = stat_cache(world.state, KEY), stat_cache(world.state, KEY, "build")
        record_placed(returned.placement, world.root, world.pushed.manifest, tree=tree, build=build)
        build.save()
        scanned = scan_build_dirs(world.root, stat_cache(world.state, KEY, "build"))
        assert all(scanned[p].content for p in scanned if scanned[p].type == "f")

    def test_the_policy_that_returns_nothing_asks_for_no_scan(self, world):
        world.write("src/a", "1")
        world.push()
        world.work(compile_all("1"))

        def scan():
            raise AssertionError("scanned")

        world.fetch(policy=BuildDir.NONE, scan=scan)
        assert isinstance(world.held(), HeldIndex)
        assert not (world.here / "target").exists()
