"""Build directories as they lie here."""

from __future__ import annotations

import os

from rch.project import builddirs as module
from rch.project import scan_build_dirs, stat_cache
from rch.worker.protocol import hash_bytes


def scan(tree, *build_dirs):
    root = tree.root(build_dirs or ("target",))
    return scan_build_dirs(root, stat_cache(tree.state, root.key, "build"))


class TestAScanOfBuildDirectories:
    def test_lists_everything_in_them_and_nothing_else(self, tree):
        tree.write("target/debug/app", "binary").chmod(0o755)
        tree.write("other/x")
        (tree.path / "target/empty").mkdir()
        os.symlink("debug/app", tree.path / "target/link")
        os.mkfifo(tree.path / "target/fifo")
        found = scan(tree)
        assert set(found) == {"target", "target/debug", "target/debug/app", "target/empty", "target/link"}
        assert found["target/debug/app"].mode == 0o755
        assert found["target/link"].content == "debug/app"
        assert found.status("target/debug/app").st_size == 6

    def test_reads_no_file_until_asked_and_then_remembers(self, tree, monkeypatch):
        path = tree.write("target/a", "content")
        tree.write("target/b")
        os.utime(path, ns=(1, 5))
        read = []
        real = module.read_file
        monkeypatch.setattr(module, "read_file", lambda name: read.append(name) or real(name))
        monkeypatch.setattr("rch.project.statcache.is_racy", lambda *_: False)
        found = scan(tree)
        assert found["target/a"].content == "" and read == []
        assert found.hash_of("target/a") == hash_bytes(b"content") == found["target/a"].content
        found.save()
        again = scan(tree)
        assert again["target/a"].content == hash_bytes(b"content")
        assert again.hash_of("target/a") == hash_bytes(b"content")
        assert len(read) == 1

    def test_answers_nothing_for_what_is_gone_or_no_file(self, tree):
        tree.write("target/a")
        (tree.path / "target/d").mkdir()
        found = scan(tree)
        (tree.path / "target/a").unlink()
        assert found.hash_of("target/a") == "" and found.hash_of("target/d") == ""

    def test_a_directory_that_is_not_there_or_is_a_link_is_not_followed(self, tree, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/x").touch()
        os.symlink(tmp_path / "outside", tree.path / "target")
        assert set(scan(tree)) == {"target"}
        assert set(scan(tree, "absent")) == set()
