"""A worker that lies: refused, named, nothing outside the root touched, nothing inside it placed (lessons AR-08)."""

from __future__ import annotations

import copy
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rch.errors import DiskFull, HostileAnswer, ProductsUnverified, RchError, TransferFault
from rch.transfer import BuildDir
from rch.transfer.validate import check_tree, checked_entries, parse_bodies, parse_delta, parse_index
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes

HASH = hash_bytes(b"x")


def file(path, content=HASH, size=1, mode=0o644):
    return [path, "f", mode, size, 1, content]


def delta(entries=(), deletes=(), bodies=(), **more):
    return {
        "generation": "g",
        "complete": False,
        "entries": list(entries),
        "deletes": list(deletes),
        "bodies": list(bodies),
        **more,
    }


ESCAPES = [
    "../../.bashrc",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/../b",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\0b",
    "../project-evil/x",
    "a/" * 3000 + "b",
    "n" * 256,
    "\ud800",
    "\udcc3\udca9",
]


class TestAListedPath:
    @pytest.mark.parametrize("path", ESCAPES)
    def test_ar_08_that_is_no_clean_path_is_refused(self, path):
        with pytest.raises(HostileAnswer):
            parse_delta(delta([file(path)]), b"", "w")
        with pytest.raises(HostileAnswer):
            parse_delta(delta(deletes=[path]), b"", "w")

    @pytest.mark.parametrize(
        "row",
        [
            ["a", "b", 0o644, 0, 1, ""],  # a block device
            ["a", "c", 0o644, 0, 1, ""],
            ["a", "p", 0o644, 0, 1, ""],
            ["a", "f", 0o4755, 1, 1, HASH],  # setuid
            ["a", "f", 0o2755, 1, 1, HASH],
            ["a", "f", 0o644, -1, 1, HASH],
            ["a", "f", 0o644, 1 << 62, 1, HASH],
            ["a", "f", 0o644, 1, 1 << 64, HASH],
            ["a", "f", 0o644, 1.5, 1, HASH],
            ["a", "f", True, 1, 1, HASH],
            ["a", "f", 0o644, 1, 1, "../" + HASH],
            ["a", "f", 0o644, 1, 1, HASH.upper()],
            ["a", "f", 0o644, 1, 1, ""],
            ["a", "f", 0o644, 1, 1, HASH, -1],
            ["a", "d", 0o755, 0, 1, HASH],
            ["a", "d", 0o755, 5, 1, ""],
            ["a", "l", 0, 0, 1, ""],
            ["a", "l", 0o777, 0, 1, "x"],
            ["a", "l", 0, 0, 1, "x\0y"],
            ["a", "l", 0, 0, 1, "x" * 5000],
            ["a"],
            "a",
            None,
        ],
    )
    def test_ar_08_that_is_no_file_directory_or_link_of_ours_is_refused(self, row):
        with pytest.raises(HostileAnswer):
            parse_delta(delta([row]), b"", "w")

    def test_ar_08_listed_twice_is_refused(self):
        with pytest.raises(HostileAnswer, match="twice"):
            checked_entries([file("a"), file("a")], "w")

    def test_ar_08_both_there_and_deleted_is_refused(self):
        with pytest.raises(HostileAnswer, match="both"):
            parse_delta(delta([file("a")], ["a"]), b"", "w")

    @pytest.mark.parametrize("above", [["a", "l", 0, 0, 1, "/etc"], file("a")])
    def test_ar_08_below_a_link_or_a_file_is_refused(self, above):
        entries = {e.path: e for e in checked_entries([above, file("a/b/passwd")], "w")}
        with pytest.raises(HostileAnswer, match="no directory"):
            check_tree(entries, "w")

    def test_ar_08_hard_linked_to_a_different_file_is_refused(self):
        with pytest.raises(HostileAnswer, match="differ"):
            checked_entries([[*file("a"), 1], [*file("b", hash_bytes(b"y")), 1]], "w")

    def test_a_link_that_points_outside_is_a_link_like_any_other(self):
        assert checked_entries([["a", "l", 0, 0, 1, "/etc/passwd"]], "w")[0].content == "/etc/passwd"

    def test_a_name_that_is_no_utf_8_is_a_name(self):
        assert checked_entries([file("caf\udce9")], "w")[0].path == "caf\udce9"


class TestAnAnswer:
    @pytest.mark.parametrize(
        "change",
        [
            {"generation": 5},
            {"generation": ""},
            {"generation": "g" * 1000},
            {"complete": "yes"},
            {"complete": None},
            {"entries": None},
            {"entries": {}},
            {"deletes": "abc"},
            {"deletes": [None]},
            {"order": ["a", "a"]},
            {"order": [1]},
            {"order": "a"},
            {"bodies": [["a", 2]]},
            {"bodies": [["a", -1]]},
            {"bodies": [["b", 1]]},
            {"bodies": [["a", 1], ["a", 1]]},
            {"bodies": "x"},
            {"bodies": []},
        ],
    )
    def test_ar_08_with_a_field_that_cannot_be_is_refused(self, change):
        with pytest.raises(HostileAnswer):
            parse_delta({**delta([file("a")], bodies=[["a", 1]]), **change}, b"x", "w")

    def test_ar_08_whose_content_does_not_have_its_hash_is_refused(self):
        with pytest.raises(HostileAnswer, match="size and hash"):
            parse_delta(delta([file("a")], bodies=[["a", 1]]), b"y", "w")

    def test_ar_08_with_more_content_than_one_answer_carries_is_refused(self):
        with pytest.raises(HostileAnswer, match="more content"):
            parse_bodies([], b"x" * (INLINE_LIMIT + 1), {}, "w")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([*ESCAPES[:6], HASH]),
            lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=20,
        ),
        st.sampled_from(["entries", "deletes", "order", "bodies", "generation", "complete"]),
        st.binary(max_size=4),
    )
    def test_ar_08_of_any_shape_is_parsed_or_refused_and_never_anything_else(self, value, key, body):
        for parse in (lambda f: parse_delta(f, body, "w"), lambda f: parse_index(f, "w")):
            try:
                parse({**delta([file("a")]), key: value})
            except HostileAnswer as refused:
                assert "\n" not in refused.one_line()


@pytest.fixture
def victim(world, put):
    """A job has run on the worker; what it answers can be forged. Outside the root lies something precious."""
    world.write("src/a", "1")
    world.write("src/b", "1")
    (world.base / "precious").write_text("precious")
    world.push()
    world.work(lambda tree: put(tree, "target/out", "out"))

    def forge(op, change):
        def forged(answer, body):
            answer = copy.deepcopy(answer)
            return change(answer, body)

        world.worker().answers[op] = forged

    world.forge = forge
    return world


def everything(world, look):
    kept = {p: e for p, e in look(world.base).items() if p.split("/")[0] not in ("w1", "state")}
    return {p: e[:6] for p, e in kept.items()}


class TestAHostileWorker:
    @pytest.mark.parametrize(
        "row",
        [
            file("../../.bashrc"),
            file("../precious"),
            file("/etc/rch-test"),
            ["dev", "b", 0o644, 0, 1, ""],
            ["sh", "f", 0o4755, 1, 1, HASH],
        ],
    )
    def test_ar_08_that_lists_an_escape_a_device_or_a_setuid_file_changes_nothing_here(self, victim, look, row):
        before = everything(victim, look)
        victim.forge("delta", lambda a, b: ({**a, "entries": [*a["entries"], row], "order": None}, b))
        with pytest.raises(HostileAnswer):
            victim.fetch()
        assert everything(victim, look) == before

    def test_ar_08_that_makes_a_link_out_of_the_root_and_a_file_through_it_changes_nothing_here(self, victim, look):
        before = everything(victim, look)
        rows = [["out", "l", 0, 0, 1, str(victim.base)], file("out/precious")]
        victim.forge("delta", lambda a, b: ({**a, "entries": [*a["entries"], *rows], "order": None}, b))
        with pytest.raises(HostileAnswer):
            victim.fetch()
        assert everything(victim, look) == before

    def test_ar_08_that_links_in_one_job_and_writes_through_it_in_the_next_reaches_nothing(self, victim, put, look):
        victim.work(lambda tree: (tree / "lib").symlink_to(victim.base))
        victim.fetch()
        assert (victim.here / "lib").is_symlink()
        victim.push()
        victim.work(lambda tree: ((tree / "lib").unlink(), put(tree, "lib/precious", "gone")))
        victim.fetch()
        assert (victim.base / "precious").read_text() == "precious"
        assert (victim.here / "lib/precious").read_text() == "gone"
        assert not (victim.here / "lib").is_symlink()

    def test_ar_08_whose_inline_content_lies_about_its_hash_places_nothing(self, victim, look):
        before = everything(victim, look)
        victim.forge("delta", lambda a, b: (a, b[:-1] + b"X"))
        with pytest.raises(HostileAnswer):
            victim.fetch()
        assert everything(victim, look) == before

    def test_ar_01_whose_bulk_content_lies_about_its_hash_places_nothing_and_is_asked_three_times(
        self, victim, put, look
    ):
        victim.work(lambda tree: put(tree, "target/big", "b" * (INLINE_LIMIT + 1)))
        before = everything(victim, look)
        worker, honest = victim.worker(), victim.worker().receive_files

        def lying(source, paths, target, *, largest):
            moved = honest(source, paths, target, largest=largest)
            with open(os.path.join(target, "target/big"), "r+b") as stream:
                stream.write(b"LIE")
            return moved

        worker.receive_files = lying
        with pytest.raises(ProductsUnverified) as raised:
            victim.fetch()
        assert raised.value.paths == ("target/big",)
        assert "rch fetch" in raised.value.hint
        assert worker.received_by_rsync.count("target/big") == 3
        assert everything(victim, look) == before

    def test_ar_08_that_sends_a_link_instead_of_a_bulk_file_places_nothing(self, victim, put, look):
        victim.work(lambda tree: put(tree, "target/big", "b" * (INLINE_LIMIT + 1)))
        before = everything(victim, look)

        def lying(source, paths, target, *, largest):
            os.makedirs(os.path.join(target, "target"), exist_ok=True)
            os.symlink(victim.base / "precious", os.path.join(target, "target/big"))
            from rch.execute.executor import Moved

            return Moved()

        victim.worker().receive_files = lying
        with pytest.raises(ProductsUnverified):
            victim.fetch()
        assert everything(victim, look) == before

    def test_ar_08_whose_stream_is_longer_than_declared_is_bounded_by_the_largest_declared_size(self, victim, put):
        victim.work(lambda tree: put(tree, "target/big", "b" * (INLINE_LIMIT + 5)))
        limits = []

        def endless(source, paths, target, *, largest):
            limits.append(largest)
            raise TransferFault("more than declared", direction="return")

        victim.worker().receive_files = endless
        with pytest.raises(ProductsUnverified):
            victim.fetch()
        assert limits == [INLINE_LIMIT + 5] * 3

    def test_ar_01_that_answers_content_for_nothing_is_undelivered_not_success(self, victim, put, look):
        victim.work(lambda tree: put(tree, "target/late", "late"))
        victim.forge("delta", lambda a, b: ({**a, "bodies": []}, b""))
        victim.forge("get", lambda a, b: ({"bodies": []}, b""))
        before = everything(victim, look)
        with pytest.raises(ProductsUnverified) as raised:
            victim.fetch()
        assert "target/late" in raised.value.paths
        assert everything(victim, look) == before

    def test_ar_01_that_has_lost_its_tree_does_not_empty_the_project(self, victim, look):
        before = everything(victim, look)
        victim.forge("delta", lambda a, b: (delta([], complete=True), b""))
        with pytest.raises(HostileAnswer, match="without 2 of the 2 files"):
            victim.fetch()
        victim.forge("delta", lambda a, b: (delta([], ["src/a", "src/b"]), b""))
        with pytest.raises(HostileAnswer, match="without 2 of the 2 files"):
            victim.fetch()
        assert everything(victim, look) == before

    def test_ar_06_that_writes_into_the_repository_changes_nothing_of_it(self, victim, put):
        (victim.here / ".git").mkdir()
        (victim.here / ".git/config").write_text("mine")
        victim.push()

        def job(tree):
            put(tree, ".git/config", "[core] fsmonitor = evil")
            put(tree, ".git/hooks/post-checkout", "evil", 0o755)
            put(tree, "sub/.GIT/config", "evil")

        victim.work(job)
        victim.fetch()
        assert (victim.here / ".git/config").read_text() == "mine"
        assert not (victim.here / ".git/hooks").exists()
        assert not (victim.here / "sub/.GIT").exists()

    def test_ar_08_whose_declared_sizes_do_not_fit_here_is_told_so_before_anything_is_fetched(self, victim, put, look):
        before = everything(victim, look)
        victim.forge(
            "delta",
            lambda a, b: ({**a, "entries": [*a["entries"], file("target/huge", size=1 << 52)], "order": None}, b),
        )
        with pytest.raises(DiskFull) as raised:
            victim.fetch()
        assert raised.value.host == "here"
        assert victim.worker().received_by_rsync == []
        assert everything(victim, look) == before

    def test_every_refusal_is_one_line_that_names_the_worker(self, victim):
        victim.forge("delta", lambda a, b: ({**a, "entries": [file("../x\n\x1b[31m")], "order": None}, b))
        with pytest.raises(RchError) as raised:
            victim.fetch()
        assert "w1" in raised.value.message
        assert "\x1b" not in raised.value.one_line()
        assert "\n" not in raised.value.one_line()

    def test_ar_08_that_lies_about_its_tree_before_a_push_is_refused(self, victim):
        victim.fetch()
        victim.write("src/a", "2")
        victim.worker().root.job_started("other")
        shutil.rmtree(victim.worker().tree / "target")
        victim.forge("index", lambda a, b: ({**a, "entries": [file("../x")]}, b))
        with pytest.raises(HostileAnswer):
            victim.push()

    def test_the_answers_survive_the_protocols_json(self, victim):
        """The forgery above is what a real channel could carry."""
        json.dumps(delta([file("../x")]))
        assert isinstance(Entry(*file("x")), Entry)
        assert BuildDir("full") is BuildDir.FULL
