"""What travels, how it is described, and that nothing here changes by being looked at."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rch.errors import NotOffloadable
from rch.project import ManifestRules, stat_cache, tree_digest
from rch.project.listing import list_root
from rch.project.manifest import manifest_of
from rch.toolchains import KINDS
from rch.worker.protocol import Entry, hash_bytes

CARGO, MAKE = KINDS["cargo.build"], KINDS["make"]


def snapshot(top: Path) -> dict[str, object]:
    """Everything about a tree that somebody could notice, .git included."""
    found: dict[str, object] = {}
    for directory, directories, names in os.walk(top):
        for name in (*directories, *names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else None
            found[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return found


class TestTheManifestOfAGitTree:
    def test_sp_01_holds_tracked_and_untracked_files_and_nothing_ignored(self, repo):
        repo.write(".gitignore", "*.tmp\n/out/\n")
        repo.write("src/build/mod.rs")
        repo.write("tests/certs/a.pem")
        repo.write("dist/source.js")
        repo.commit()
        repo.write("new.rs")
        repo.write("junk.tmp")
        repo.write("out/private.db")
        assert repo.files() == {".gitignore", "src/build/mod.rs", "tests/certs/a.pem", "dist/source.js", "new.rs"}

    def test_sp_01_never_drops_a_tracked_file_whatever_the_patterns_say(self, repo):
        for name in ("target/notes.md", "node_modules/x.js", "lib/a.o", "lib/b.so", ".env", "keys/id_rsa", "cert.key"):
            repo.write(name)
        repo.commit()
        assert repo.files() == {
            "target/notes.md", "node_modules/x.js", "lib/a.o", "lib/b.so", ".env", "keys/id_rsa", "cert.key",
        }  # fmt: skip

    def test_a_16_applies_the_default_patterns_to_untracked_files(self, repo):
        repo.write("src/main.rs")
        repo.commit()
        for name in (
            "target/debug/app",
            "sub/target/x",
            "node_modules/a/b.js",
            "a.o",
            "b.rlib",
            "c.rmeta",
            "d.a",
            "e.so",
            "f.dylib",
        ):
            repo.write(name)
        assert repo.files() == {"src/main.rs"}

    def test_a_16_keeps_a_new_source_beside_tracked_ones_in_a_directory_called_target(self, repo):
        repo.write("src/target/mod.rs")
        repo.commit()
        repo.write("src/target/new.rs")
        assert repo.files() == {"src/target/mod.rs", "src/target/new.rs"}

    def test_sp_01_holds_back_and_counts_untracked_secrets(self, repo):
        repo.write("src/main.rs")
        repo.commit()
        for name in (
            ".env",
            ".env.local",
            "deploy.pem",
            "id_ed25519",
            ".aws/credentials",
            "conf/.netrc",
            ".env.example",
        ):
            repo.write(name)
        manifest = repo.manifest()
        assert {p for p, e in manifest.entries.items() if e.type == "f"} == {"src/main.rs", ".env.example"}
        assert manifest.held_back == (".aws/", ".env", ".env.local", "conf/.netrc", "deploy.pem", "id_ed25519")

    def test_sp_02_holds_modified_staged_and_deleted_work_as_it_lies_there(self, repo):
        for name in ("modified", "staged", "deleted", "kept"):
            repo.write(name, name)
        repo.commit()
        repo.write("modified", "other")
        repo.write("staged", "new")
        repo.git("add", "staged")
        (repo.path / "deleted").unlink()
        entries = repo.manifest().entries
        assert set(entries) == {"modified", "staged", "kept"}
        assert entries["modified"].content == hash_bytes(b"other")
        assert entries["staged"].content == hash_bytes(b"new")

    def test_sp_02_leaves_head_index_and_status_as_they_were(self, repo):
        repo.write("a")
        repo.write("b")
        repo.commit()
        repo.write("a", "changed")
        repo.write("new")
        repo.git("add", "new")
        os.utime(repo.path / "b")  # a refresh of the index would be noticed
        before, status = snapshot(repo.path), None
        repo.manifest()
        assert snapshot(repo.path) == before
        status = repo.git("status", "--porcelain")
        assert status == "M a\nA  new" or status.split("\n") == [" M a".strip(), "A  new"]

    def test_has_every_directory_with_mode_and_time_empty_ones_too(self, repo):
        repo.write(".gitignore", "*.log\n/ignored/\n")
        repo.write("src/a.rs")
        repo.write("logs/today.log")
        repo.commit()
        (repo.path / "empty/below").mkdir(parents=True)
        (repo.path / "ignored").mkdir()
        (repo.path / "empty").chmod(0o750)
        os.utime(repo.path / "src", ns=(1, 1_234_567_891))
        entries = repo.manifest().entries
        assert {p for p, e in entries.items() if e.type == "d"} == {"src", "logs", "empty", "empty/below"}
        assert entries["empty"].mode == 0o750
        assert entries["src"].mtime_ns == 1_234_567_891

    def test_follows_submodules_and_their_own_ignore_rules(self, repo, tmp_path: Path, new_tree):
        other = new_tree(tmp_path / "other")
        other.git("init", "-q")
        other.write("lib.c")
        other.write(".gitignore", "*.gen\n")
        other.commit()
        repo.write("main.c")
        repo.commit()
        repo.git("submodule", "add", "-q", str(other.path), "vendor/other")
        repo.commit()
        repo.write("vendor/other/new.c")
        repo.write("vendor/other/x.gen")
        assert repo.files() == {
            "main.c", ".gitmodules", "vendor/other/lib.c", "vendor/other/.gitignore", "vendor/other/new.c",
        }  # fmt: skip

    def test_takes_a_nested_clone_along_but_no_second_worktree_of_the_same_repository(self, repo, new_tree):
        repo.write("main.rs")
        repo.commit()
        nested = new_tree(repo.path / "nested")
        nested.git("init", "-q")
        nested.write("lib.rs")
        nested.write(".gitignore", "junk\n")
        nested.write("junk")
        repo.git("worktree", "add", "-q", str(repo.path / "wt"), "-b", "other")
        assert repo.files() == {"main.rs", "nested/lib.rs", "nested/.gitignore"}

    def test_sp_06_of_a_linked_worktree_lists_that_worktree(self, repo, tmp_path: Path, new_tree):
        repo.write("a.rs")
        repo.commit()
        repo.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
        linked = new_tree(tmp_path / "linked")
        linked.write("b.rs")
        assert linked.files() == {"a.rs", "b.rs"}

    def test_of_a_directory_inside_a_repository_has_paths_of_its_own(self, repo, new_tree):
        repo.write(".gitignore", "*.tmp\n")
        repo.write("rust/src/lib.rs")
        repo.write("rust/x.tmp")
        repo.write("web/index.js")
        repo.commit()
        below = new_tree(repo.path / "rust")
        assert below.files() == {"src/lib.rs"}

    def test_of_a_tree_unpacked_in_an_ignored_directory_is_that_tree(self, repo, new_tree):
        repo.write(".gitignore", "/scratch/\n")
        repo.write("scratch/pkg/src/lib.rs")
        repo.commit()
        below = new_tree(repo.path / "scratch/pkg")
        assert below.files() == {"src/lib.rs"}

    def test_starts_no_program_that_the_repository_names(self, repo, tmp_path: Path):
        trap = tmp_path / "trap"
        trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexit 0\n")
        trap.chmod(0o755)
        repo.write("a")
        repo.commit()
        repo.git("config", "core.fsmonitor", str(trap))
        repo.git("config", "filter.x.clean", str(trap))
        repo.git("config", "filter.x.process", str(trap))
        repo.write(".gitattributes", "* filter=x\n")
        (tmp_path / "sprung").unlink(missing_ok=True)
        repo.write("a", "changed")
        repo.manifest()
        assert not (tmp_path / "sprung").exists()
        repo.git("ls-files", "-o")  # the trap does work
        assert (tmp_path / "sprung").exists()


class TestTheManifestOfOtherTrees:
    def test_outside_a_repository_holds_everything_but_the_patterns(self, tree):
        tree.write("src/main.rs")
        tree.write(".gitignore", "src\n")
        tree.write("target/debug/x")
        tree.write(".env")
        manifest = tree.manifest()
        assert {p for p, e in manifest.entries.items() if e.type == "f"} == {"src/main.rs", ".gitignore"}
        assert manifest.held_back == (".env",)

    def test_sp_10_holds_the_ignored_inputs_of_make(self, repo):
        repo.write(".gitignore", "local.mk\nconfig.h\nMakefile\n*.o\n.env\nbuild/\n")
        repo.write("main.c")
        repo.commit()
        for name in ("local.mk", "config.h", "Makefile", "main.o", "build/CMakeCache.txt", "build/build.ninja", ".env"):
            repo.write(name)
        assert repo.files(MAKE) == {
            ".gitignore", "main.c", "local.mk", "config.h", "Makefile", "main.o", "build/CMakeCache.txt", "build/build.ninja",
        }  # fmt: skip
        assert repo.manifest(MAKE).held_back == (".env",)
        assert repo.files(CARGO) == {".gitignore", "main.c"}

    def test_sp_10_refuses_an_ignored_input_above_the_limit_and_names_it(self, repo):
        repo.write(".gitignore", "big.img\n")
        repo.commit()
        with open(repo.path / "big.img", "wb") as stream:
            stream.truncate(3_000_000)
        with pytest.raises(NotOffloadable) as caught:
            repo.manifest(MAKE, max_file_bytes=2_000_000)
        assert caught.value.code == "too-large"
        assert "big.img" in caught.value.message and "3 MB" in caught.value.message
        assert "big.img" not in repo.files(CARGO, max_file_bytes=2_000_000)

    def test_skips_sockets_fifos_and_the_proof_of_a_client(self, tree, monkeypatch: pytest.MonkeyPatch):
        tree.write("a")
        tree.write(".rch-proof-0123")
        os.mkfifo(tree.path / "fifo")
        monkeypatch.chdir(tree.path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
            assert tree.files() == {"a"}

    def test_sends_only_the_toml_files_of_dot_rch(self, repo):
        repo.write(".rch/config.toml")
        repo.write(".rch/notes.txt")
        repo.write(".rch/sub/x.toml")
        assert repo.files() == {".rch/config.toml"}
        assert repo.files(MAKE) == {".rch/config.toml"}

    def test_names_what_cannot_be_read(self, tree, monkeypatch: pytest.MonkeyPatch):
        secret = tree.write("locked")
        secret.chmod(0)
        if os.geteuid() == 0:  # root reads everything: let the open fail as it would for a user
            real_open = os.open

            def refuse(path, flags, *args, **kwargs):
                if str(path).endswith("locked"):
                    raise PermissionError(13, "Permission denied", path)
                return real_open(path, flags, *args, **kwargs)

            monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(NotOffloadable) as caught:
            tree.manifest()
        assert caught.value.code == "missing-input" and "locked" in caught.value.message


class TestRules:
    def test_rchignore_leaves_out_untracked_and_tracked_paths_and_says_which_tracked_ones(self, repo):
        repo.write(".rchignore", "assets/\n*.psd\n!keep.psd\n")
        for name in ("assets/film.mov", "a.psd", "keep.psd", "src/a.rs"):
            repo.write(name)
        repo.commit()
        repo.write("b.psd")
        manifest = repo.manifest()
        assert {p for p, e in manifest.entries.items() if e.type == "f"} == {".rchignore", "keep.psd", "src/a.rs"}
        assert manifest.left_out == ("a.psd", "assets/")

    def test_rchignore_works_without_a_repository_and_in_subdirectories(self, tree):
        tree.write(".rchignore", "/big\n")
        tree.write("big/x")
        tree.write("sub/big/x")
        tree.write("sub/.rchignore", "*.bin\n")
        tree.write("sub/a.bin")
        tree.write("b.bin")
        assert tree.files() == {".rchignore", "sub/.rchignore", "sub/big/x", "b.bin"}

    def test_rchignore_can_take_back_a_default_pattern(self, repo):
        repo.write(".rchignore", "!vendor.a\n")
        repo.write("vendor.a")
        repo.write("other.a")
        assert repo.files() == {".rchignore", "vendor.a"}

    def test_exclude_extra_adds_for_untracked_files_only(self, repo):
        repo.write("data/tracked.csv")
        repo.commit()
        repo.write("data/new.csv")
        assert repo.files(exclude_extra=("*.csv",)) == {"data/tracked.csv"}

    def test_force_include_wins_over_everything(self, repo):
        repo.write(".gitignore", ".cargo/\nsecret/\n")
        repo.write(".rchignore", "held/\n")
        repo.commit()
        for name in (
            ".cargo/config.toml",
            ".cargo/other",
            "target/keep.bin",
            "target/x",
            ".env",
            "held/a",
            "secret/all/b",
        ):
            repo.write(name)
        forced = (".cargo/config.toml", "target/keep.bin", ".env", "held/a", "/secret/")
        assert repo.files(force_include=forced) == {
            ".gitignore", ".rchignore", ".cargo/config.toml", "target/keep.bin", ".env", "held/a", "secret/all/b",
        }  # fmt: skip

    def test_what_a_worker_returned_earlier_belongs_to_it_even_if_ignored(self, repo):
        repo.write(".gitignore", "gen/\n")
        repo.commit()
        repo.write("gen/a/out.rs")
        repo.write("gen/other.rs")
        manifest = repo.manifest(also=("gen/a/out.rs", "gone"))
        assert set(manifest.entries) == {".gitignore", "gen", "gen/a", "gen/a/out.rs"}

    def test_nothing_untracked_of_a_build_directory_is_sent(self, repo):
        repo.write("Cargo.toml")
        repo.write("out/README")
        repo.commit()
        repo.write("out/debug/app")
        assert repo.files(build_dirs=("out",)) == {"Cargo.toml", "out/README"}
        assert repo.files() == {"Cargo.toml", "out/README", "out/debug/app"}


class TestEntries:
    def test_names_of_any_bytes_survive(self, repo):
        names = [b"a b", b"new\nline", b"\xff\xfe", "é".encode(), b"-dash", b'quo"te', b"tab\t"]
        for name in names:
            with open(os.path.join(os.fsencode(repo.path), name), "wb") as stream:
                stream.write(name)
        repo.commit()
        with open(os.path.join(os.fsencode(repo.path), b"un\xfftracked"), "wb"):
            pass
        found = {os.fsencode(path) for path in repo.files()}
        assert found == {*names, b"un\xfftracked"}
        entry = repo.manifest().entries[os.fsdecode(b"\xff\xfe")]
        assert entry.content == hash_bytes(b"\xff\xfe")

    def test_describe_links_modes_and_hard_links(self, tree):
        tree.write("script", "#!/bin/sh\n").chmod(0o755)
        tree.write("plain")
        os.link(tree.path / "plain", tree.path / "twin")
        os.link(tree.path / "script", tree.path / "a-twin")
        os.symlink("plain", tree.path / "inside")
        os.symlink("nowhere", tree.path / "dangling")
        os.symlink("/usr/include", tree.path / "system")
        entries = tree.manifest().entries
        assert entries["script"].mode == 0o755
        assert (entries["inside"].type, entries["inside"].content, entries["inside"].mode) == ("l", "plain", 0)
        assert entries["dangling"].content == "nowhere" and entries["system"].content == "/usr/include"
        assert (entries["a-twin"].group, entries["script"].group) == (0, 0)
        assert (entries["plain"].group, entries["twin"].group) == (1, 1)

    def test_times_are_to_the_nanosecond(self, tree):
        os.utime(tree.write("a"), ns=(1, 1_700_000_000_123_456_789))
        assert tree.manifest().entries["a"].mtime_ns == 1_700_000_000_123_456_789


class TestTheDigest:
    def test_sp_03_changes_with_renames_deletions_modes_types_and_contents_and_never_with_times(self, tree):
        tree.write("a", "1")
        tree.write("b", "2")
        first = tree.manifest().digest
        os.utime(tree.path / "a")
        assert tree.manifest().digest == first
        seen = {first}
        for change in (
            lambda: (tree.path / "a").rename(tree.path / "c"),
            (tree.path / "b").unlink,
            lambda: (tree.path / "c").chmod(0o755),
            lambda: tree.write("c", "3"),
            lambda: ((tree.path / "c").unlink(), os.symlink("x", tree.path / "c")),
            lambda: ((tree.path / "c").unlink(), os.symlink("y", tree.path / "c")),
            lambda: ((tree.path / "c").unlink(), (tree.path / "c").mkdir()),
        ):
            change()
            digest = tree.manifest().digest
            assert digest not in seen
            seen.add(digest)

    _name = st.text(alphabet="ab\0\n/fd1".replace("\0", "").replace("/", ""), min_size=1, max_size=3)
    _entry = st.builds(
        Entry,
        path=st.lists(_name, min_size=1, max_size=3).map("/".join),
        type=st.sampled_from("fdl"),
        mode=st.sampled_from((0, 0o644, 0o755)),
        size=st.integers(0, 9),
        mtime_ns=st.integers(0, 10**18),
        content=st.text(alphabet="ab0", max_size=3),
    )
    _tree = st.lists(_entry, max_size=5, unique_by=lambda e: e.path)

    @settings(max_examples=300, deadline=None)
    @given(one=_tree, other=_tree)
    def test_is_equal_exactly_for_equal_trees(self, one, other):
        def essence(entries):
            return {(e.path, e.type, e.mode, e.content) for e in entries}

        digests = [tree_digest({e.path: e for e in entries}) for entries in (one, other)]
        assert (digests[0] == digests[1]) is (essence(one) == essence(other))

    @settings(max_examples=100, deadline=None)
    @given(entries=_tree, data=st.data())
    def test_knows_no_order_and_no_times(self, entries, data):
        shuffled = data.draw(st.permutations(entries))
        moved = [e._replace(mtime_ns=data.draw(st.integers(0, 10**18)), group=3) for e in shuffled]
        assert tree_digest({e.path: e for e in entries}) == tree_digest({e.path: e for e in moved})


class TestTheStatCache:
    def test_sp_03_sees_an_edit_of_equal_size_with_its_time_put_back(self, tree):
        path = tree.write("a", "one")
        reference = tree.write("reference")
        subprocess.run(["touch", "-r", str(path), str(reference)], check=True)
        settle(tree)
        first = tree.manifest().entries["a"]
        assert "a" in stat_cache(tree.state, tree.root().key).rows
        before = os.stat(path)
        path.write_text("two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        second = tree.manifest().entries["a"]
        assert (first.size, first.mtime_ns) == (second.size, second.mtime_ns)
        assert second.content == hash_bytes(b"two") != first.content

    @pytest.mark.parametrize(
        ("ctime_ns", "age_ns", "racy"),
        [
            (10**18 + 1, 0, True),
            (10**18 + 1, 19_000_000, True),
            (10**18 + 1, 21_000_000, False),
            (10**18, 1_900_000_000, True),  # whole seconds: a coarse file system
            (10**18, 2_100_000_000, False),
            (10**18 + 1, -(10**9), True),  # a file from the future
        ],
    )
    def test_sp_03_keeps_a_row_only_if_the_clock_had_moved_on_when_the_file_was_read(
        self, tree, ctime_ns, age_ns, racy
    ):
        status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 5, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, ctime_ns))
        cache = stat_cache(tree.state, "key")
        cache.record("a", status, "0" * 64, 10**19)
        assert cache.lookup("a", status) is not None
        cache.record("a", status, "1" * 64, ctime_ns + age_ns)
        assert cache.lookup("a", status) == (None if racy else "1" * 64)

    def test_reads_nothing_that_has_not_changed(self, tree, monkeypatch: pytest.MonkeyPatch):
        from rch.project import manifest as module

        for number in range(20):
            tree.write(f"f{number}")
        settle(tree)
        tree.manifest()
        read: list[str] = []
        real = module.read_file
        monkeypatch.setattr(module, "read_file", lambda path, *where: read.append(path) or real(path, *where))
        tree.manifest()
        assert read == []
        os.utime(tree.path / "f3")
        settle(tree)
        tree.manifest()
        assert [os.path.basename(path) for path in read] == ["f3"]
        read.clear()
        tree.manifest(rehash=True)
        assert len(read) == 20

    def test_survives_a_broken_file_and_keeps_it_private(self, tree):
        tree.write("a")
        settle(tree)
        tree.manifest()
        root = tree.root()
        path = Path(tree.state) / "roots" / root.key / "stat-tree"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        whole = path.read_bytes()
        for broken in (b"", whole[:-1], whole[:20], whole[:-5] + b"\0" * 5, b"x" * 200):
            path.write_bytes(broken)
            assert stat_cache(tree.state, root.key).rows == {}
            assert tree.manifest().entries["a"].content == hash_bytes(b"x\n")
        path.write_bytes(whole)
        assert set(stat_cache(tree.state, root.key).rows) == {"a"}

    def test_keeps_inodes_of_64_bits_and_times_before_1970(self, tmp_path: Path):
        from rch.paths import AbsPath
        from rch.project.statcache import StatCache

        status = os.stat_result((0o100644, (1 << 64) - 2, 1, 1, 0, 0, 5, 0, 0, 0, 0.0, 0.0, 0.0, -5, -7, -9))
        cache = StatCache(AbsPath(str(tmp_path / "cache")))
        cache.record("é\udcff", status, "ab" * 32, 10**18)
        cache.save()
        again = StatCache(AbsPath(str(tmp_path / "cache")))
        assert again.lookup("é\udcff", status) == "ab" * 32


def settle(tree) -> None:
    """Wait until the newest change is older than the racy window of the file system (a few ticks)."""
    import time

    newest = max(os.lstat(os.path.join(d, n)).st_ctime_ns for d, _, names in os.walk(tree.path) for n in names)
    while time.time_ns() - newest < 60_000_000:
        time.sleep(0.01)


class TestRandomTrees:
    _paths = st.lists(
        st.lists(st.sampled_from(["a", "b", "target", ".env", "x.o", "é", "src"]), min_size=1, max_size=3).map(
            "/".join
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(paths=_paths, tracked=st.sets(st.integers(0, 7)))
    def test_are_listed_as_git_lists_them_less_patterns_and_secrets(self, tmp_path_factory, new_tree, paths, tracked):
        top = tmp_path_factory.mktemp("random")
        tree = new_tree(top / "proj")
        tree.git("init", "-q")
        made = []
        for path in paths:
            if not any(other.startswith(path + "/") or path.startswith(other + "/") for other in made):
                tree.write(path, path)
                made.append(path)
        for number in tracked:
            if number < len(made):
                tree.git("add", "-f", "--", made[number])
        added = {made[n] for n in tracked if n < len(made)}
        found = tree.files()
        assert added <= found
        for path in set(made) - added:
            parts = path.split("/")
            above = ["/".join(parts[:n]) for n in range(1, len(parts))]
            dropped = any(
                p.split("/")[-1] in ("target", "x.o") and not any(a.startswith(p + "/") for a in added) for p in above
            )
            expected = not (dropped or parts[-1] in ("x.o", ".env"))
            assert (path in found) is expected, path


class TestATreeThatIsChangedWhileItIsRead:
    """Who may write the tree may not read by it what lies elsewhere."""

    @pytest.fixture
    def secret(self, tmp_path):
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret/key").write_text("a key\n")
        return tmp_path / "secret"

    def swapped(self, tree, secret):
        """``keys`` is a directory for the walk, and a link to *secret* from then on."""
        tree.write("keys/key", "nothing\n")
        listing = list_root(tree.real, ManifestRules(), ignored_inputs=False)
        (tree.path / "keys").rename(tree.path.with_name("aside"))
        (tree.path / "keys").symlink_to(secret)
        root = tree.root()
        return manifest_of(root, listing, CARGO, ManifestRules(), stat_cache(tree.state, root.key))

    def test_se_08_has_no_file_read_through_a_link_that_came_into_the_way(self, tree, secret):
        manifest = self.swapped(tree, secret)
        assert "keys/key" not in manifest.entries

    def test_says_which_directory_was_read(self, tree):
        tree.write("a", "b")
        status = os.stat(tree.path)
        assert tree.manifest().identity == (status.st_dev, status.st_ino)
