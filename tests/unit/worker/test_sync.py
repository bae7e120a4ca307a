"""A push onto a root's tree: every change of shape, hostile trees, interruptions, times."""

import contextlib
import os
import stat
import time

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.testing.worker_root import OLD, WorkerRoot, new_job, push
from rch.testing.worker_root import directory_item as d
from rch.testing.worker_root import file_item as f
from rch.testing.worker_root import link_item as l
from rch.worker.protocol import hash_bytes

STRANGE = [
    "with space",
    "new\nline",
    "tab\there",
    "ünïcode",
    "\udcff\udcfe",
    "-dash",
    "*",
    "a'b\"c",
    "$x",
    "c:\\d",
    ".hidden",
    "x" * 255,
]


def read(root, path):
    with open(os.fsencode(root.path()) + b"/" + path.encode("utf-8", "surrogateescape"), "rb") as file:
        return file.read()


def status(root, path):
    return os.lstat(os.fsencode(root.path()) + b"/" + path.encode("utf-8", "surrogateescape"))


SHAPES = {
    "nothing": [],
    "file": [f("x", b"content")],
    "other file": [f("x", b"another")],
    "executable": [f("x", b"content", mode=0o755)],
    "link": [l("x", "elsewhere")],
    "dangling link out": [l("x", "/etc")],
    "empty directory": [d("x")],
    "full directory": [d("x"), f("x/a", b"1"), d("x/s"), f("x/s/b", b"2"), l("x/l", "a")],
}


class TestEveryShapeBecomesEveryOther:
    @pytest.mark.parametrize("before", SHAPES)
    @pytest.mark.parametrize("after", SHAPES)
    def test_sp_12_and_the_index_tells_it(self, root, before, after):
        root.sync(d("keep"), f("keep/me", b"k"), *SHAPES[before])
        wanted = {row[0]: row for row, _ in SHAPES[after]}
        gone = [row[0] for row, _ in SHAPES[before] if row[0] not in wanted]
        below = [path for path in gone if "/" in path and "x" in wanted and wanted["x"][1] != "d"]
        deletes = sorted((path for path in gone if path not in below), key=lambda p: -p.count("/"))
        root.sync(*SHAPES[after], deletes=deletes)
        assert {p: r for p, r in root.index().items() if p.startswith("x")} == wanted
        for path, row in wanted.items():
            found = status(root, path)
            kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}[stat.S_IFMT(found.st_mode)]
            assert (kind, found.st_mtime_ns) == (row[1], OLD)
            if kind != "l":
                assert found.st_mode & 0o777 == row[2]
        assert read(root, "keep/me") == b"k"

    def test_names_of_any_bytes(self, root):
        items = [f(name, name.encode("utf-8", "surrogateescape")) for name in STRANGE]
        items += [d("dir\udc80"), f("dir\udc80/inner\n", b"i"), l("link\udc81", "target\udcff\n")]
        root.sync(*items)
        for name in STRANGE:
            assert read(root, name) == name.encode("utf-8", "surrogateescape")
        assert root.index()["link\udc81"][5] == "target\udcff\n"
        assert set(root.index()) == {row[0] for row, _ in items}

    def test_time_and_mode_alone_travel_without_content(self, root):
        root.sync(f("a", b"same"))
        row, _ = f("a", b"same", mode=0o755, mtime_ns=OLD + 5)
        root.sync((row, None))
        found = status(root, "a")
        assert (found.st_mode & 0o777, found.st_mtime_ns, read(root, "a")) == (0o755, OLD + 5, b"same")

    def test_times_are_set_to_the_nanosecond_of_directories_last(self, root):
        items = [d("a", mtime_ns=1), d("a/b", mtime_ns=2), f("a/b/c", b"x", mtime_ns=3), l("a/b/l", "c", mtime_ns=4)]
        root.sync(*items)
        times = [status(root, path).st_mtime_ns for path in ("a", "a/b", "a/b/c", "a/b/l")]
        assert times == [1, 2, 3, 4]

    def test_a_directory_whose_child_came_or_went_keeps_the_time_that_was_pushed(self, root):
        root.sync(d("a", mtime_ns=7), f("a/one", b"1"))
        root.sync(f("a/two", b"2"))
        assert status(root, "a").st_mtime_ns == 7
        root.sync(deletes=["a/one"])
        assert status(root, "a").st_mtime_ns == 7

    def test_directories_without_write_permission_can_be_filled_and_emptied(self, root):
        root.sync(d("ro", mode=0o555), f("ro/a", b"1"), d("ro/sub", mode=0o500), f("ro/sub/b", b"2"))
        assert status(root, "ro").st_mode & 0o777 == 0o555
        root.sync(f("ro/sub/b", b"3"), f("ro/c", b"4"))
        assert (status(root, "ro/sub").st_mode & 0o777, read(root, "ro/sub/b")) == (0o500, b"3")
        root.sync(f("ro", b"file now"))
        assert read(root, "ro") == b"file now"

    def test_parents_that_were_not_listed_are_made(self, root):
        root.sync(f("deep/er/file", b"x"))
        assert read(root, "deep/er/file") == b"x"
        assert root.index()["deep/er"][1] == "d"


class TestHardLinks:
    def test_a_set_is_one_file_with_several_names(self, root):
        root.sync(f("a", b"one", group=0), (f("b", b"one", group=0)[0], None), f("c", b"one"))
        assert status(root, "a").st_ino == status(root, "b").st_ino != status(root, "c").st_ino
        index = root.index()
        assert index["a"][6] == index["b"][6]
        assert len(index["c"]) == 6

    def test_new_content_for_one_name_does_not_reach_the_others(self, root):
        root.sync(f("a", b"one", group=0), (f("b", b"one", group=0)[0], None))
        root.sync(f("a", b"two"))
        assert (read(root, "a"), read(root, "b")) == (b"two", b"one")

    def test_a_new_time_for_one_name_does_not_reach_what_a_job_linked_to_it(self, root):
        root.sync(d("out"), f("a", b"one"))
        root.run("ln a out/a")
        root.delta()
        row, _ = f("a", b"one", mtime_ns=OLD + 9)
        root.sync((row, None))
        assert status(root, "out/a").st_mtime_ns == OLD
        assert status(root, "a").st_mtime_ns == OLD + 9

    def test_a_third_name_joins(self, root):
        root.sync(f("a", b"one", group=0), (f("b", b"one", group=0)[0], None))
        rows = [(f(name, b"one", group=3)[0], None) for name in "abc"]
        root.sync(*rows)
        assert len({status(root, name).st_ino for name in "abc"}) == 1


class TestDeleting:
    def test_ar_02_a_directory_that_holds_what_nobody_listed_stays_and_is_named(self, root):
        root.sync(d("out"), f("out/known", b"1"))
        root.run("echo 2 > out/unknown")
        root.delta()
        answer = root.sync(deletes=["out/known", "out"])
        assert answer["kept"] == ["out"]
        assert set(root.index()) == {"out", "out/unknown"}

    def test_what_is_not_there_is_deleted_already(self, root):
        root.sync(f("a", b"1"))
        root.sync(deletes=["b", "a/b", "c/d"])
        assert set(root.index()) == {"a"}

    def test_deletion_never_goes_through_a_link(self, root, tmp_path):
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "precious").write_text("p")
        root.sync(l("out", str(victim)))
        root.sync(deletes=["out/precious", "out"])
        assert (victim / "precious").read_text() == "p"
        assert root.index() == {}


class TestAHostileTree:
    """A job may leave any link anywhere; the next push must stay inside the tree."""

    @pytest.fixture
    def victim(self, tmp_path):
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "a").write_text("untouched")
        yield victim
        assert sorted(os.listdir(victim)) == ["a"]
        assert (victim / "a").read_text() == "untouched"
        assert not victim.is_symlink()

    def leave(self, root, victim):
        """What a job would leave: its directory became a link out of the tree."""
        root.sync(d("dir"), f("dir/a", b"1"))
        root.run(f"rm -r dir; ln -s {victim} dir")

    def test_ar_08_a_file_below_a_link_replaces_the_link(self, root, victim):
        self.leave(root, victim)
        root.delta()
        root.sync(f("dir/a", b"2"), f("dir/b", b"3"))
        assert read(root, "dir/a") == b"2"
        assert stat.S_ISDIR(status(root, "dir").st_mode)

    def test_ar_08_unseen_links_are_refused_before_they_are_looked_at(self, root, victim):
        self.leave(root, victim)
        with pytest.raises(WorkerRefused, match="dirty"):
            root.sync(f("dir/a", b"2"))

    @pytest.mark.parametrize("what", ["mode", "delete", "directory", "link", "hard link"])
    def test_ar_08_no_other_change_goes_through_it(self, root, victim, what):
        self.leave(root, victim)
        root.delta()
        if what == "mode":
            row, _ = f("dir/a", b"untouched", mode=0o777)
            with pytest.raises(WorkerRefused):
                root.sync((row, None))
        elif what == "delete":
            root.sync(deletes=["dir/a"])
        elif what == "directory":
            root.sync(d("dir"), d("dir/sub"))
        elif what == "link":
            root.sync(l("dir/l", "x"))
        else:
            root.sync(f("dir/x", b"1", group=0), (f("dir/y", b"1", group=0)[0], None))

    def test_ar_08_contents_are_not_read_through_it(self, root, victim):
        self.leave(root, victim)
        delta = root.delta()
        assert delta.entries["dir"][1] == "l"
        assert "dir/a" in delta.deletes
        answer = root.worker.request("get", {"job": root.job, "root": root.key, "paths": ["dir/a", "dir"]})
        assert (answer.fields["bodies"], answer.body) == ([], b"")

    def test_pipes_sockets_and_unreadable_things_do_not_stop_the_walk(self, root):
        script = "mkfifo p; mkdir locked; echo x > locked/f; chmod 000 locked; echo y > secret; chmod 000 secret"
        root.run(script)
        delta = root.delta()
        assert set(delta.entries) == {"locked", "locked/f", "secret"}
        assert delta.entries["locked"][2] == delta.entries["secret"][2] == 0
        assert status(root, "locked").st_mode & 0o777 == 0
        assert delta.bodies == {"locked/f": b"x\n", "secret": b"y\n"}
        root.sync(f("locked", b"file"))
        assert read(root, "locked") == b"file"

    @pytest.mark.parametrize("mode", [0o000, 0o111, 0o222, 0o333, 0o444, 0o555, 0o666])
    def test_directories_that_keep_us_out_are_read_changed_and_left_as_they_were(self, root, mode):
        root.sync(d("p"), f("p/a", b"1"), d("p/q"), f("p/q/b", b"2"))
        root.run(f"echo 3 > p/q/b; chmod {mode:o} p/q p")
        delta = root.delta()
        assert delta.bodies == {"p/q/b": b"3\n"}
        assert delta.entries["p"][2] == delta.entries["p/q"][2] == mode
        assert status(root, "p").st_mode & 0o777 == status(root, "p/q").st_mode & 0o777 == mode
        root.sync(f("p/q/b", b"4"), f("p/c", b"5"), deletes=["p/a"])
        index = root.index()
        assert {path: row[2] for path, row in index.items() if row[1] == "d"} == {"p": mode, "p/q": mode}
        assert set(index) == {"p", "p/q", "p/q/b", "p/c"}
        assert status(root, "p").st_mode & 0o777 == status(root, "p/q").st_mode & 0o777 == mode
        root.run("true")
        assert root.delta().entries == {}

    def test_deep_trees_are_removed_without_depth(self, root):
        root.sync(d("deep"))
        script = "cd deep; i=0; while [ $i -lt 900 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > bottom"
        assert root.run(script).rc["code"] == 0
        root.delta(since=None)
        root.sync(f("deep", b"flat"))
        assert read(root, "deep") == b"flat"
        assert os.listdir(os.path.join(root.directory, "trash")) == []


class TestWhatIsRefused:
    @pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a//b", "./a", "a/.", "a\0b", "a/"])
    def test_ar_08_paths_that_are_not_inside(self, root, path):
        row = [path, "f", 0o644, 1, OLD, hash_bytes(b"x")]
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.sync((row, b"x"))
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.sync(deletes=[path])

    @pytest.mark.parametrize("key", ["", "..", "../x", "ABCDEF01", "0123456789/x", "xyzxyzxy", "01234567\n"])
    def test_root_keys_that_are_no_hex(self, worker, job, key):
        with pytest.raises(WorkerRefused, match="bad-request"):
            worker.request("prepare", {"job": job, "slots": 0, "roots": [{"key": key, "base": None}]})

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "A", "a b", "é", "a\n"])
    def test_job_names_that_are_no_names(self, worker, name):
        with pytest.raises(WorkerRefused, match="bad-request"):
            worker.request("prepare", {"job": name, "slots": 0, "roots": []})

    def test_content_of_another_hash_or_size(self, root):
        root.sync(f("a", b"1"))
        row, _ = f("a", b"right")
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync((row, b"wrong"))
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync((row, b"longer than declared"))
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync((row, None))
        assert read(root, "a") == b"1"
        assert root.index()["a"][5] == hash_bytes(b"1")

    def test_a_file_below_a_file_a_path_twice_content_for_nothing(self, root):
        for items, deletes in (
            ([f("a", b"1"), f("a/b", b"2")], []),
            ([f("a", b"1"), f("a", b"2")], []),
            ([f("a", b"1")], ["a"]),
            ([l("a", "x"), d("a/b")], []),
        ):
            with pytest.raises(WorkerRefused, match="bad-request"):
                root.sync(*items, deletes=deletes)
        fields = {"job": root.job, "root": root.key, "base": "", "bodies": [["zz", 1]]}
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.worker.request("sync", fields, b"x")
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.worker.request("sync", {**fields, "changes": [f("zz", b"x")[0]], "bodies": [["zz", 5]]}, b"x")

    def test_a_push_against_another_generation_is_stale_and_changes_nothing(self, root):
        root.sync(f("a", b"1"))
        with pytest.raises(WorkerRefused, match="stale"):
            root.sync(f("a", b"2"), base="0123456789abcdef")
        assert read(root, "a") == b"1"

    def test_a_root_that_another_job_holds_is_busy(self, root):
        with pytest.raises(WorkerRefused, match="busy"):
            root.worker.request("prepare", {"job": new_job(), "slots": 0, "roots": [{"key": root.key}], "wait_s": 0.2})
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.worker.request("sync", {"job": new_job(), "root": root.key, "base": None, "changes": []})


class TestStaging:
    def stage(self, root, path, content):
        target = os.path.join(root.directory, "staging", path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)

    def test_files_that_rsync_brought_are_checked_and_moved_in(self, root):
        self.stage(root, "big/file", b"bulk")
        root.sync(f("big/file", b"bulk", mode=0o755), f("small", b"s"), staged=["big/file"])
        found = status(root, "big/file")
        assert (read(root, "big/file"), found.st_mode & 0o777, found.st_mtime_ns) == (b"bulk", 0o755, OLD)
        assert os.listdir(os.path.join(root.directory, "staging")) == []

    def test_another_content_and_a_missing_one_are_a_mismatch_before_anything_moves(self, root):
        self.stage(root, "good", b"good")
        self.stage(root, "bad", b"bad!")
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync(f("good", b"good"), f("bad", b"good"), staged=["good", "bad"])
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync(f("none", b"good"), staged=["none"])
        assert os.listdir(root.path()) == []

    def test_a_staged_link_is_no_file(self, root, tmp_path):
        (tmp_path / "secret").write_bytes(b"good")
        os.symlink(tmp_path / "secret", os.path.join(root.directory, "staging", "a"))
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync(f("a", b"good"), staged=["a"])
        os.symlink(tmp_path, os.path.join(root.directory, "staging", "d"))
        with pytest.raises(WorkerRefused, match="mismatch"):
            root.sync(f("d/secret", b"good"), staged=["d/secret"])


class TestInterruptions:
    def test_sp_12_a_push_killed_anywhere_is_repaired_by_the_next(self, make_worker):
        worker = make_worker()
        root = WorkerRoot(worker)
        root.hold()
        root.sync(d("d"), *[f(f"d/{n}", b"old %d" % n) for n in range(300)])
        wanted = [d("d"), *[f(f"d/{n}", b"new %d" % n * 50) for n in range(300)], f("extra", b"e")]
        for delay in (0.0, 0.004, 0.01, 0.02, 0.05):
            fields, body = push(wanted, ["gone"])
            with contextlib.suppress(ConnectionError):
                worker.submit("sync", {"job": root.job, "root": root.key, "base": root.generation, **fields}, body)
                time.sleep(delay)
            worker.kill()
            worker = make_worker()
            again = WorkerRoot(worker, root.key)
            again.generation = root.generation
            _, found = again.hold()
            if found["dirty"] or not found["applied"]:
                index = again.index()
                rows = {row[0]: (row, content) for row, content in wanted}
                again.sync(*[item for path, item in rows.items() if index.get(path) != item[0]])
            else:
                again.sync(*wanted)
            root = again
            assert root.index() == {row[0]: row for row, _ in wanted}
            for row, content in wanted:
                if content is not None:
                    assert read(root, row[0]) == content
            root.sync(*[f(f"d/{n}", b"old %d" % n) for n in range(300)], deletes=["extra"])

    def test_pm_05_content_of_an_interrupted_push_still_gets_a_new_time(self, make_worker):
        worker = make_worker()
        root = WorkerRoot(worker)
        root.hold()
        root.sync(f("src", b"old"))
        root.run("cp src product")
        root.delta()
        root.sync(f("src", b"new"))
        # as if killed after the rename and before the index: what the index knows is the old state
        with open(os.path.join(root.directory, "dirty"), "wb"):
            pass
        os.unlink(os.path.join(root.directory, "index"))
        os.utime(root.path("src"), ns=(OLD, OLD))
        index = root.index()
        row, _ = f("src", b"new")
        assert index["src"][5] == row[5]
        root.sync((row, None))
        assert status(root, "src").st_mtime_ns > status(root, "product").st_mtime_ns
        assert root.index()["src"][4] == OLD

    def test_a_dirty_root_takes_no_push_and_no_job_before_somebody_looked(self, root):
        root.sync(f("a", b"1"))
        with open(os.path.join(root.directory, "dirty"), "wb"):
            pass
        with pytest.raises(WorkerRefused, match="dirty"):
            root.sync(f("a", b"2"))
        root.release()
        _, found = root.hold(new_job(), items=[f("a", b"2")])
        assert (found["dirty"], found["applied"]) == (True, False)
        assert set(root.index()) == {"a"}
        root.sync(f("a", b"2"))
        assert read(root, "a") == b"2"

    def test_sp_12_a_push_that_fails_half_way_leaves_a_root_that_says_so(self, root):
        root.sync(f("a", b"1"), f("z", b"1"))
        with pytest.raises(WorkerRefused, match="internal"):
            root.sync(f("a", b"2"), f("n" * 300, b"no such name can exist"), f("z", b"2"))
        with pytest.raises(WorkerRefused, match="dirty"):
            root.sync(f("z", b"2"))
        index = root.index()
        assert (index["a"][5], index["z"][5]) == (hash_bytes(b"2"), hash_bytes(b"1"))

    def test_nothing_is_trusted_after_a_reboot(self, root):
        root.sync(f("a", b"1"))
        path = os.path.join(root.directory, "meta.json")
        with open(path, encoding="ascii") as file:
            text = file.read()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            text = text.replace(file.read().strip(), "another-boot")
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        with open(root.path("a"), "w", encoding="ascii") as file:
            file.write("")
        with pytest.raises(WorkerRefused, match="dirty"):
            root.sync(f("b", b"2"))
        assert root.index()["a"][3] == 0

    @pytest.mark.parametrize("name", ["index", "meta.json"])
    @pytest.mark.parametrize("damage", ["gone", "empty", "garbage"])
    def test_a_damaged_record_means_a_look_not_a_guess(self, root, name, damage):
        root.sync(f("a", b"1"), f("b", b"2"))
        path = os.path.join(root.directory, name)
        if damage == "gone":
            os.unlink(path)
        else:
            with open(path, "wb") as file:
                file.write(b"" if damage == "empty" else b"RCH-INDEX 1\nnonsense")
        with pytest.raises(WorkerRefused, match=r"dirty|stale"):
            root.sync(f("a", b"3"))
        assert set(root.index()) == {"a", "b"}
        root.sync(f("a", b"3"))
        assert read(root, "a") == b"3"


class TestTimesOfPushedFiles:
    def test_pm_05_new_content_older_than_the_last_job_gets_the_current_time_there_alone(self, root):
        root.sync(f("src", b"old"), f("same", b"same"))
        root.run("cp src product")
        root.delta()
        before = time.time_ns()
        root.sync(f("src", b"new"), (f("same", b"same", mtime_ns=OLD + 1)[0], None))
        assert before - 10**9 < status(root, "src").st_mtime_ns
        assert status(root, "same").st_mtime_ns == OLD + 1
        assert root.index()["src"][4] == OLD
        root.run("true")
        delta = root.delta()
        assert "src" not in delta.entries
        whole = root.delta(since=None)
        assert whole.entries["src"][4] == OLD

    def test_pm_05_a_bump_stays_there_when_a_job_changes_all_but_the_content(self, root):
        root.sync(f("src", b"old"))
        root.run("true")
        root.delta()
        root.sync(f("src", b"new"))
        root.run("chmod 755 src; ln src other")
        entry = root.delta().entries["src"]
        assert (entry[2], entry[4]) == (0o755, OLD)

    def test_pm_05_make_rebuilds_after_an_edit_dated_back(self, root):
        makefile = b"out: src\n\tcp src out\n"
        root.sync(f("Makefile", makefile), f("src", b"old"))
        assert root.run("make").rc["code"] == 0
        root.delta()
        root.sync(f("src", b"new", mtime_ns=OLD - 120 * 10**9))
        root.run("make")
        root.delta()
        assert read(root, "out") == b"new"

    def test_pm_05_an_edit_made_while_the_job_ran_counts_too(self, root):
        root.sync(f("src", b"old"))
        root.run("sleep 0.3; cp src product")
        meanwhile = time.time_ns() - 200_000_000
        root.delta()
        root.sync(f("src", b"new", mtime_ns=meanwhile))
        assert status(root, "src").st_mtime_ns > status(root, "product").st_mtime_ns

    def test_pm_07_a_newer_time_is_kept_to_the_nanosecond(self, root):
        root.sync(f("src", b"old"))
        root.run("true")
        root.delta()
        newer = time.time_ns() + 5 * 10**9 + 1
        root.sync(f("src", b"new", mtime_ns=newer))
        assert status(root, "src").st_mtime_ns == newer

    def test_an_older_product_put_back_keeps_its_time(self, root):
        root.run("echo built > product")
        root.delta()
        root.sync(f("product", b"older one"), exact=["product"])
        assert status(root, "product").st_mtime_ns == OLD

    def test_a_bumped_file_that_a_job_rewrites_comes_back_with_its_own_time(self, root):
        root.sync(f("src", b"old"))
        root.run("true")
        root.delta()
        root.sync(f("src", b"new"))
        root.run("sleep 0.05; echo generated > src")
        delta = root.delta()
        assert delta.entries["src"][4] == status(root, "src").st_mtime_ns
        assert delta.bodies["src"] == b"generated\n"


class TestAFreshTree:
    def test_a_12_reset_starts_from_nothing(self, root):
        root.sync(f("a", b"1"))
        root.run("mkdir target; echo x > target/old")
        root.delta()
        root.sync(f("a", b"1"), reset=True)
        assert set(root.index()) == {"a"}
        assert not os.path.exists(root.path("target"))
