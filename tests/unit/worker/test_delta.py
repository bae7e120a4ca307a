"""What a job changed: one walk after it, exactly the paths that differ, in the order they were written."""

import os
import shutil
import time

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.testing.worker_root import OLD, WorkerRoot, new_job
from rch.testing.worker_root import directory_item as d
from rch.testing.worker_root import file_item as f
from rch.testing.worker_root import link_item as l
from rch.worker.protocol import hash_bytes


class TestADelta:
    def test_ar_10_it_is_what_differs_and_nothing_else(self, root):
        root.sync(d("src"), f("src/a", b"1"), f("src/b", b"2"), d("out"), f("out/old", b"o"), l("link", "src/a"))
        result = root.run(
            "echo new > out/new; echo 22 > src/b; rm out/old; ln -sfn src/b link; chmod +x src/a; mkdir -p empty/dir"
        )
        assert result.rc["code"] == 0
        delta = root.delta()
        assert not delta.complete
        assert delta.deletes == ["out/old"]
        assert set(delta.entries) == {"out", "out/new", "src/b", "link", "src/a", "empty", "empty/dir"}
        assert delta.entries["src/a"][2] == 0o755
        assert delta.entries["link"][5] == "src/b"
        assert delta.bodies == {"out/new": b"new\n", "src/b": b"22\n"}
        assert delta.entries["out/new"][5] == hash_bytes(b"new\n")

    def test_a_job_that_changed_nothing_changes_nothing(self, root):
        root.sync(d("src"), f("src/a", b"1"))
        root.run("cat src/a; touch -r src/a src/a")
        delta = root.delta()
        assert (delta.complete, delta.entries, delta.deletes, delta.bodies) == (False, {}, [], {})

    def test_ar_11_entries_come_in_the_order_in_which_they_were_written(self, root):
        names = [f"f{n}" for n in (3, 1, 4, 1.5, 9, 2, 6)]
        root.run("; ".join(f"echo x > {name}; sleep 0.02" for name in names))
        assert root.delta().order == names

    def test_times_only_are_a_difference_without_content(self, root):
        root.sync(f("a", b"1"))
        root.run("touch a")
        delta = root.delta()
        assert set(delta.entries) == {"a"}
        assert delta.bodies == {}
        assert delta.entries["a"][4] > OLD

    def test_sp_03_a_same_size_edit_with_its_old_time_is_seen(self, root):
        root.sync(f("a", b"one"))
        root.run("touch -r a t; printf two > a; touch -r t a; rm t")
        delta = root.delta()
        assert delta.bodies == {"a": b"two"}
        assert delta.entries["a"][4] == OLD

    def test_hard_links_that_a_job_made_come_as_a_set_with_every_name(self, root):
        root.sync(f("a", b"1"))
        root.run("ln a b; echo x > c; ln c d")
        delta = root.delta()
        assert set(delta.entries) == {"a", "b", "c", "d"}
        groups = {path: row[6] for path, row in delta.entries.items()}
        assert groups["a"] == groups["b"] != groups["c"] == groups["d"]

    def test_a_link_that_was_broken_up_is_a_change_of_both(self, root):
        root.sync(f("a", b"1", group=0), (f("b", b"1", group=0)[0], None))
        root.run("cp b t; mv t b; touch -r a b")
        delta = root.delta()
        assert set(delta.entries) == {"a", "b"}
        assert all(len(row) == 6 for row in delta.entries.values())

    def test_names_of_any_bytes_come_back(self, root):
        root.run("printf x > \"$(printf 'new\\nline')\"; printf y > \"$(printf '\\377\\376')\"")
        assert root.delta().bodies == {"new\nline": b"x", "\udcff\udcfe": b"y"}

    def test_types_that_changed(self, root):
        root.sync(f("a", b"1"), d("b"), f("b/c", b"2"), l("e", "a"))
        root.run("rm a; mkdir a; echo x > a/y; rm -r b; echo z > b; rm e; mkdir e")
        delta = root.delta()
        assert {path: row[1] for path, row in delta.entries.items()} == {"a": "d", "a/y": "f", "b": "f", "e": "d"}
        assert delta.deletes == ["b/c"]

    def test_bodies_come_while_they_fit_and_get_brings_the_rest(self, root):
        root.run("head -c 600 /dev/zero > a; sleep 0.02; head -c 600 /dev/zero > b; sleep 0.02; echo c > c")
        delta = root.delta(inline=1000)
        assert {path: len(data) for path, data in delta.bodies.items()} == {"a": 600, "c": 2}
        answer = root.worker.request("get", {"job": root.job, "root": root.key, "paths": ["b", "nothing"]})
        assert answer.fields["bodies"] == [["b", 600]]
        assert len(answer.body) == 600


class TestGenerations:
    def test_ar_10_an_unknown_generation_gets_everything(self, root):
        root.sync(f("a", b"1"))
        root.run("echo x > b")
        for since in (None, "0123456789abcdef", ""):
            delta = root.delta(since=since)
            assert delta.complete
            assert set(delta.entries) == {"a", "b"}
            assert delta.deletes == []

    def test_an_answer_that_was_lost_is_given_again(self, root):
        root.sync(f("a", b"1"), f("gone", b"g"))
        before = root.generation
        root.run("echo x > b; rm gone")
        first = root.delta()
        again = root.delta(since=before)
        assert (first.entries, first.bodies, first.deletes) == (again.entries, again.bodies, again.deletes)
        assert first.generation == again.generation

    def test_an_answer_is_given_again_by_another_serve(self, make_worker, root):
        before = root.generation
        root.run("echo x > b")
        first = root.delta(since=before) if before else root.delta()
        root.worker.kill()
        other = WorkerRoot(make_worker(), root.key)
        other.job, other.generation = root.job, before
        again = other.delta()
        assert again.bodies == first.bodies == {"b": b"x\n"}

    def test_after_it_the_tree_is_known_again(self, root):
        root.sync(f("a", b"1"))
        root.run("echo x > b")
        generation = root.delta().generation
        root.release()
        _, found = root.hold(new_job(), items=[f("a", b"2")])
        assert (found["applied"], found["dirty"]) == (True, False)
        assert found["generation"] != generation

    def test_a_job_whose_changes_nobody_read_makes_the_next_push_look_first(self, root):
        root.sync(f("a", b"1"))
        root.run("echo 2 > a")
        root.release()
        _, found = root.hold(new_job(), items=[f("c", b"3")])
        assert (found["applied"], found["dirty"]) == (False, True)
        assert root.index()["a"][5] == hash_bytes(b"2\n")

    def test_a_job_before_another_one_is_told_that_it_is_too_late(self, root):
        root.run("echo 1 > a")
        first = root.job
        root.release()
        root.hold(new_job())
        root.index()
        root.run("echo 2 > b")
        root.release()
        with pytest.raises(WorkerRefused, match="stale"):
            root.delta(job=first)

    def test_a_running_job_has_none_yet(self, root):
        root.hold()
        from rch.testing.worker_process import minimal_spec

        spec = minimal_spec(["sleep", "600"], roots=[{"key": root.key, "path": "/srv/project"}])
        root.worker.request("start", {"job": root.job, "spec": spec})
        with pytest.raises(WorkerRefused, match="busy"):
            root.delta()
        root.worker.request("signal", {"job": root.job, "signal": "KILL"})

    def test_before_any_job_it_is_empty(self, root):
        root.sync(f("a", b"1"))
        delta = root.delta()
        assert (delta.complete, delta.entries, delta.generation) == (False, {}, root.generation)


class TestTheCost:
    """In this process: the counters of the walk and of the hashing."""

    @pytest.fixture
    def here(self, tmp_path):
        from rch.worker import roots
        from rch.worker._change import parse_change
        from rch.worker.cache import Cache
        from rch.worker.roots import Root

        cache = Cache(str(tmp_path / "cache"))
        cache.create()
        root = Root(cache, "ab" * 16)
        root.create()
        change, _ = parse_change(
            {"changes": [row for row, _ in (f("a", b"1"), f("b", b"2"))], "bodies": [["a", 1], ["b", 1]]}, b"12"
        )
        generation, _ = root.sync("", change)
        return roots, root, generation

    def test_ar_12_no_walk_before_the_job_and_one_after_it(self, here):
        roots, root, generation = here
        before = roots.walks
        assert root.standing() == (generation, False)
        root.job_started("j")
        assert roots.walks == before
        with open(os.path.join(root.tree, "a"), "w", encoding="ascii") as file:
            file.write("3")
        kept = {}
        delta = root.delta("j", generation, 1 << 20, kept, ended_ns=time.time_ns())
        assert roots.walks == before + 1
        assert delta.order == ["a"]
        root.delta("j", generation, 1 << 20, kept, ended_ns=time.time_ns())
        root.index()
        assert roots.walks == before + 1

    def test_ar_12_only_what_differs_is_read(self, here):
        from rch.worker import _index, _scan
        from rch.worker._tree import Tree

        _, root, _ = here
        _, rows = _index.load(os.path.join(root.directory, "index"))
        with Tree(root.tree, root.directory + "/trash") as tree:
            assert _scan.scan(tree, rows).hashed == 0
        shutil.copy(os.path.join(root.tree, "a"), os.path.join(root.tree, "c"))
        with Tree(root.tree, root.directory + "/trash") as tree:
            found = _scan.scan(tree, rows)
        assert (found.hashed, found.changed) == (1, ["c"])


class TestAnotherClock:
    """The offset of a test: no machine has two clocks."""

    @pytest.mark.parametrize("offset_ns", [3_600 * 10**9, -500_000_000])
    def test_what_a_job_wrote_is_dated_by_the_workers_clock(self, make_worker, offset_ns):
        worker = make_worker(env={"RCH_WKR_CLOCK_OFFSET_NS": str(offset_ns)})
        assert abs(worker.request("ping").fields["time_ns"] - time.time_ns() - offset_ns) < 20 * 10**9
        root = WorkerRoot(worker)
        root.hold()
        root.sync(f("a", b"1"))
        result = root.run("echo x > b")
        assert abs(result.rc["started_ns"] - time.time_ns() - offset_ns) < 60 * 10**9
        delta = root.delta()
        assert set(delta.entries) == {"b"}
        assert abs(delta.entries["b"][4] - time.time_ns() - offset_ns) < 60 * 10**9
        root.run("true")
        assert root.delta().entries == {}
