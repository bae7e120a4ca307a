"""The made-up .git: what git answers in a copy made of the manifest alone is what it answers here."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from rch.errors import NotOffloadable
from rch.project import ManifestRules, git_overlay, stat_cache
from rch.project._gitindex import portable_index
from rch.project.listing import list_root
from rch.project.manifest import manifest_of
from rch.toolchains import KINDS

CARGO = KINDS["cargo.build"]
QUESTIONS = (
    ("rev-parse", "HEAD"),
    ("rev-parse", "--short", "HEAD"),
    ("rev-parse", "--abbrev-ref", "HEAD"),
    ("rev-parse", "--is-inside-work-tree"),
    ("rev-parse", "--show-prefix"),
    ("describe", "--tags", "--dirty", "--always"),
    ("describe", "--always", "--dirty=-x", "--long"),
    ("log", "-1"),
    ("log", "-1", "--format=%H %h %an %ae %cd %D"),
    ("log", "--oneline"),
    ("rev-list", "--count", "HEAD"),
    ("tag", "--list"),
    ("ls-files",),
    ("diff-index", "--name-only", "HEAD"),
)


def full_manifest(tree, policy="head"):
    root = tree.root()
    rules = ManifestRules()
    listing = list_root(root.real, rules, ignored_inputs=False)
    overlay = git_overlay(root, policy, tree.state, listing.checkouts)
    return manifest_of(root, listing, CARGO, rules, stat_cache(tree.state, root.key), overlay=overlay)


def job_copy(tree, target: Path, policy="head") -> Path:
    """The tree as a job sees it: every entry of the manifest, times included, and nothing else."""
    manifest = full_manifest(tree, policy)
    target.mkdir(parents=True)
    for path, entry in manifest.entries.items():
        where = target / path
        if entry.type == "d":
            where.mkdir(exist_ok=True)
        elif entry.type == "l":
            os.symlink(entry.content, where)
        else:
            source = manifest.sources.get(path) or tree.path / path
            where.write_bytes(Path(source).read_bytes())
            where.chmod(entry.mode)
        if entry.type != "d":
            os.utime(where, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
    return target


def ask(directory: Path, home: Path, words: tuple[str, ...]) -> tuple[int, str, str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CEILING_DIRECTORIES": str(directory.parent.parent),
    }
    done = subprocess.run(["git", *words], cwd=directory, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def assert_same_answers(here: Path, there: Path, home: Path, questions=QUESTIONS) -> None:
    empty = home.parent / "empty-home"
    empty.mkdir(exist_ok=True)
    for words in questions:
        assert ask(there, empty, words) == ask(here, home, words), words


@pytest.fixture
def history(repo):
    """A repository with a tag, a later commit, a branch that is not merged, and files of several seconds ago."""
    repo.write("a.txt", "one")
    repo.write("dir/b.txt", "two")
    repo.commit("first")
    repo.git("tag", "-a", "v1.0", "-m", "one")
    repo.git("branch", "unmerged")
    repo.write("a.txt", "two")
    repo.commit("second")
    repo.git("tag", "light")
    repo.write("dir/c.txt", "three")
    repo.commit("third")
    repo.age()
    repo.git("update-index", "-q", "--refresh")
    return repo


class TestUnderHead:
    def test_sp_06_a_clone_answers_as_here(self, history, tmp_path, home):
        assert_same_answers(history.path, job_copy(history, tmp_path / "job/x"), home)

    def test_sp_06_a_linked_worktree_answers_as_here(self, history, tmp_path, home, new_tree):
        history.git("worktree", "add", "-q", str(tmp_path / "linked/wt"), "-b", "side")
        linked = new_tree(tmp_path / "linked/wt")
        linked.write("own.txt")
        linked.commit("on the side")
        assert_same_answers(linked.path, job_copy(linked, tmp_path / "job/x"), home)

    def test_sp_06_a_submodule_answers_for_itself_and_so_does_what_holds_it(self, history, tmp_path, home, new_tree):
        outer = new_tree(tmp_path / "outer/proj")
        outer.git("init", "-q")
        outer.write("main.c")
        outer.commit("outer")
        outer.git("submodule", "add", "-q", str(history.path), "sub/module")
        outer.commit("with module")
        there = job_copy(outer, tmp_path / "job/x")
        assert_same_answers(outer.path, there, home)
        assert_same_answers(outer.path / "sub/module", there / "sub/module", home)
        module = new_tree(outer.path / "sub/module")  # as a root of its own
        assert_same_answers(module.path, job_copy(module, tmp_path / "job2/x"), home)
        (outer.path / "sub/module/a.txt").write_text("changed in the module")
        assert_same_answers(outer.path, job_copy(outer, tmp_path / "job3/x"), home)

    def test_sp_06_no_repository_stays_none(self, tree, tmp_path, home):
        tree.write("a")
        there = job_copy(tree, tmp_path / "job/x")
        assert not (there / ".git").exists()

    def test_a_part_of_a_repository_answers_as_here(self, history, tmp_path, home, new_tree):
        part = new_tree(history.path / "dir")
        there = job_copy(part, tmp_path / "job/x/dir")
        questions = [q for q in QUESTIONS if q != ("rev-parse", "--show-prefix")]
        assert_same_answers(part.path, there, home, (*questions, ("rev-parse", "--show-prefix")))
        part.write("c.txt", "changed")
        assert_same_answers(part.path, job_copy(part, tmp_path / "job2/x/dir"), home)

    @pytest.mark.parametrize(
        "change",
        [
            lambda repo: repo.write("a.txt", "edited"),
            lambda repo: repo.write("a.txt", "owt"),  # same size
            lambda repo: (repo.path / "a.txt").unlink(),
            lambda repo: (repo.write("new.txt"), repo.git("add", "new.txt")),
            lambda repo: repo.write("untracked.txt"),
            lambda repo: (repo.path / "a.txt").chmod(0o755),
            lambda repo: os.utime(repo.path / "a.txt"),  # touched only: clean
            lambda repo: repo.git("checkout", "-q", "--detach", "HEAD~1"),
            lambda repo: repo.git("checkout", "-q", "unmerged"),
            lambda repo: repo.git("rm", "-q", "--cached", "a.txt"),
        ],
    )
    def test_dirty_is_dirty_and_clean_is_clean(self, history, tmp_path, home, change):
        change(history)
        there = job_copy(history, tmp_path / "job/x")
        assert ask(there, home, ("describe", "--tags", "--dirty")) == ask(
            history.path, home, ("describe", "--tags", "--dirty")
        )

    def test_an_edit_in_the_second_of_the_last_commit_is_seen(self, repo, tmp_path, home):
        for number in range(5):
            repo.write("a.txt", f"{number}.0")
            repo.commit(f"c{number}")
            repo.write("a.txt", f"{number}.1")
            there = job_copy(repo, tmp_path / f"job/{number}")
            assert ask(there, home, ("describe", "--always", "--dirty"))[1].endswith("-dirty\n")

    def test_a_file_of_the_second_of_the_index_gets_no_time_so_that_git_there_reads_it(self, repo, tmp_path):
        for name, second in (("old", 1_000), ("young", 2_000), ("future", 3_000)):
            os.utime(repo.write(name), (second, second))
        repo.git("add", "-A")
        index = repo.path / ".git/index"
        (tmp_path / "index").write_bytes(portable_index(index.read_bytes(), written_s=2_000))
        said = subprocess.run(
            ["git", "ls-files", "--debug"],
            cwd=repo.path,
            env={**os.environ, "GIT_INDEX_FILE": str(tmp_path / "index")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        times = dict(zip(("future", "old", "young"), re.findall(r"mtime: (\d+):0", said), strict=True))
        assert times == {"old": "1000", "young": "0", "future": "0"}

    def test_an_edit_by_the_job_makes_it_dirty_there(self, history, tmp_path, home):
        there = job_copy(history, tmp_path / "job/x")
        assert "dirty" not in ask(there, home, ("describe", "--tags", "--dirty"))[1]
        (there / "a.txt").write_text("new")
        assert "dirty" in ask(there, home, ("describe", "--tags", "--dirty"))[1]

    def test_a_clean_tree_is_answered_without_reading_a_file(self, history, tmp_path, home):
        there = job_copy(history, tmp_path / "job/x")
        for name in ("a.txt", "dir/b.txt"):  # same stat data, other content: only a reader would notice
            status = os.stat(there / name)
            (there / name).write_bytes(b"#" * status.st_size)
            os.utime(there / name, ns=(status.st_mtime_ns, status.st_mtime_ns))
        assert "dirty" not in ask(there, home, ("describe", "--tags", "--dirty"))[1]

    def test_holds_no_blob(self, history, tmp_path, home):
        there = job_copy(history, tmp_path / "job/x")
        said = ask(there, home, ("cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"))[1].split()
        assert set(said) == {"commit", "tree", "tag"}
        assert said.count("commit") == 3

    def test_se_02_carries_no_credential_hook_stash_or_other_branch(self, history, tmp_path, home):
        history.git("remote", "add", "origin", "https://user:hunter2@example.org/x.git")
        history.git("config", "http.https://example.org/.extraheader", "AUTHORIZATION: basic aHVudGVyMg==")
        history.git("config", "credential.helper", "store --file=/x")
        history.git("config", "alias.x", "!hunter2")
        history.write("secret.txt", "hunter2")
        history.git("add", "secret.txt")
        history.git("stash", "-q")
        history.git("checkout", "-q", "unmerged")
        history.write("other.txt", "hunter2")
        history.commit("hunter2 in another branch")
        history.git("checkout", "-q", "main")
        hook = history.write(".git/hooks/post-checkout", "#!/bin/sh\necho hunter2\n")
        hook.chmod(0o755)
        there = job_copy(history, tmp_path / "job/x")
        found = [p for p in (there / ".git").rglob("*") if p.is_file()]
        assert not any(b"hunter2" in p.read_bytes() or b"aHVudGVyMg" in p.read_bytes() for p in found)
        assert not (there / ".git/hooks").exists()
        said = ask(there, home, ("cat-file", "--batch-all-objects", "--batch-check=%(objectname)"))[1].split()
        assert (
            len(
                [
                    oid
                    for oid in said
                    if b"hunter2" in subprocess.check_output(["git", "cat-file", "-p", oid], cwd=there)
                ]
            )
            == 0
        )

    def test_nothing_is_made_anew_while_head_and_index_stay(self, history, monkeypatch):
        first = full_manifest(history)
        time.sleep(2.1)  # until it is sure that a change would show in the stat data
        full_manifest(history)
        import rch.project.gitdir as module

        def no_process(*_args, **_more):
            raise AssertionError("a process was started")

        monkeypatch.setattr(module, "run_git", no_process)
        history.write("a.txt", "edited")
        second = full_manifest(history)
        overlay = [{p: e for p, e in m.entries.items() if p.startswith(".git/")} for m in (first, second)]
        assert overlay[0] == overlay[1]

    def test_after_a_commit_only_a_few_small_files_are_new(self, history):
        def packs(manifest):
            return {p: e for p, e in manifest.entries.items() if p.endswith(".pack")}

        first = full_manifest(history)
        history.write("a.txt", "again")
        history.commit("fourth")
        second = full_manifest(history)
        assert packs(first).items() < packs(second).items()
        new = [e for p, e in packs(second).items() if p not in packs(first)]
        assert len(new) == 1 and new[0].size < 1000

    def test_the_repository_here_is_only_read(self, history):
        from pathlib import Path

        def state():
            return {
                str(p): (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes() if p.is_file() else b"")
                for p in sorted(Path(history.path / ".git").rglob("*"))
            }

        os.utime(history.path / "a.txt")
        before = state()
        full_manifest(history)
        assert state() == before

    def test_works_before_the_first_commit(self, repo, tmp_path, home):
        repo.write("a")
        there = job_copy(repo, tmp_path / "job/x")
        assert ask(there, home, ("rev-parse", "--verify", "-q", "HEAD")) == ask(
            repo.path, home, ("rev-parse", "--verify", "-q", "HEAD")
        )
        assert ask(there, home, ("symbolic-ref", "HEAD"))[1] == "refs/heads/main\n"

    @pytest.mark.parametrize("version", ["3", "4"])
    def test_reads_indexes_of_every_version(self, history, tmp_path, home, version):
        if version == "3":
            history.write("later.txt")
            history.git("add", "-N", "later.txt")
        else:
            history.git("update-index", "--index-version", "4")
        assert_same_answers(history.path, job_copy(history, tmp_path / "job/x"), home)

    def test_reads_a_split_index(self, history, tmp_path, home):
        history.git("update-index", "--split-index")
        history.write("s.txt")
        history.git("add", "s.txt")
        assert_same_answers(history.path, job_copy(history, tmp_path / "job/x"), home)

    def test_reads_a_sparse_checkout(self, history, tmp_path, home):
        history.git("sparse-checkout", "init", "--cone", "--sparse-index")
        history.git("sparse-checkout", "set", "nothing")
        there = job_copy(history, tmp_path / "job/x")
        questions = [q for q in QUESTIONS if q != ("ls-files",)]
        assert_same_answers(history.path, there, home, questions)

    def test_reads_a_repository_of_sha256(self, tree, tmp_path, home):
        tree.git("init", "-q", "--object-format=sha256")
        tree.write("a")
        tree.commit("first")
        tree.git("tag", "v1")
        assert_same_answers(tree.path, job_copy(tree, tmp_path / "job/x"), home)

    def test_reads_a_shallow_clone(self, history, tmp_path, home, new_tree):
        history.git("clone", "-q", "--depth", "1", f"file://{history.path}", str(tmp_path / "shallow/x"))
        shallow = new_tree(tmp_path / "shallow/x")
        assert_same_answers(shallow.path, job_copy(shallow, tmp_path / "job/x"), home)

    def test_cuts_a_very_long_history_as_a_shallow_clone_would(self, history, tmp_path, home, monkeypatch):
        monkeypatch.setattr("rch.project.gitdir._MAX_COMMITS", 2)
        there = job_copy(history, tmp_path / "job/x")
        assert ask(there, home, ("rev-list", "--count", "HEAD"))[1] == "2\n"
        assert ask(there, home, ("describe", "--tags", "--dirty")) == ask(
            history.path, home, ("describe", "--tags", "--dirty")
        )

    def test_settings_that_shape_the_answers_cross(self, history, tmp_path, home):
        history.git("config", "log.date", "iso")
        with (home / ".gitconfig").open("a") as stream:
            stream.write("[format]\n\tpretty = oneline\n[core]\n\tquotePath = false\n")
        history.write("é.txt")
        history.commit("accent")
        assert_same_answers(history.path, job_copy(history, tmp_path / "job/x"), home)


class TestOtherPolicies:
    def test_none_makes_nothing(self, history, tmp_path):
        assert not (job_copy(history, tmp_path / "job/x", "none") / ".git").exists()

    def test_full_answers_about_blobs_and_branches_without_credentials(self, history, tmp_path, home):
        history.git("remote", "add", "origin", "https://user:hunter2@example.org/x.git")
        history.git("config", "credential.helper", "store --file=/hunter2")
        history.git("gc", "-q")
        there = job_copy(history, tmp_path / "job/x", "full")
        assert_same_answers(
            history.path,
            there,
            home,
            (*QUESTIONS, ("show", "HEAD:a.txt"), ("branch", "-a"), ("log", "--all", "--oneline")),
        )
        assert ask(there, home, ("remote", "-v"))[1].count("https://example.org/x.git") == 2
        assert not any(b"hunter2" in p.read_bytes() for p in (there / ".git").rglob("*") if p.is_file())
        assert not (there / ".git/logs").exists() and not (there / ".git/hooks").exists()

    def test_full_of_a_linked_worktree_is_a_whole_repository(self, history, tmp_path, home, new_tree):
        history.git("worktree", "add", "-q", str(tmp_path / "linked/wt"), "-b", "side")
        linked = new_tree(tmp_path / "linked/wt")
        there = job_copy(linked, tmp_path / "job/x", "full")
        assert_same_answers(linked.path, there, home, (*QUESTIONS, ("show", "HEAD:a.txt")))

    def test_a_broken_repository_is_named(self, history):
        (history.path / ".git/refs/heads/main").write_text("0" * 39 + "1\n")
        with pytest.raises(NotOffloadable) as caught:
            full_manifest(history)
        assert caught.value.code == "missing-input" and str(history.path) in caught.value.message


class TestARepositoryOfSomebodyElsesMaking:
    """rchd can read more than whoever wrote the repository, and what it makes of it goes to a worker."""

    @pytest.fixture
    def secret(self, home):
        path = home / ".ssh/id_ed25519"
        path.parent.mkdir()
        path.write_text("a key of the user\n")
        return path

    def travels(self, tree):
        manifest = full_manifest(tree)
        return b"".join(Path(source).read_bytes() for source in manifest.sources.values())

    def test_se_08_has_no_file_read_that_its_configuration_names(self, history, secret):
        history.git("config", "core.excludesFile", str(secret))
        assert b"a key of the user" not in self.travels(history)

    def test_se_08_has_no_file_read_that_an_included_configuration_names(self, history, secret):
        history.write(".git/more", f"[core]\n\texcludesFile = {secret}\n")
        history.git("config", "include.path", "more")
        assert b"a key of the user" not in self.travels(history)

    def test_se_08_has_no_file_read_that_its_exclude_file_leads_to(self, history, secret):
        (history.path / ".git/info/exclude").unlink(missing_ok=True)
        (history.path / ".git/info/exclude").symlink_to(secret)
        assert b"a key of the user" not in self.travels(history)

    def test_has_its_own_exclude_file_and_the_users_read(self, history, home):
        history.write("ignored-here", "*.mine\n")
        history.git("config", "core.excludesFile", str(history.path / "ignored-here"))
        history.write(".git/info/exclude", "*.local\n")
        assert b"*.mine\n*.local\n" in self.travels(history)
        history.git("config", "--unset", "core.excludesFile")
        (home / "mine").write_text("*.everywhere\n")
        history.git("config", "--global", "core.excludesFile", "~/mine")
        assert b"*.everywhere\n*.local\n" in self.travels(history)


class TestARepositoryOfACallerInASandbox:
    @pytest.fixture
    def other(self, new_tree, tmp_path):
        """Somebody's repository that the caller may not be able to read."""
        tree = new_tree(tmp_path / "other")
        tree.git("init", "-q")
        tree.write("a", "x")
        tree.commit("a word that nobody else has to know")
        return tree

    def overlay(self, tree):
        return git_overlay(tree.root(), "head", tree.state, confined=True)

    def refused(self, tree):
        with pytest.raises(NotOffloadable) as caught:
            self.overlay(tree)
        return caught.value.code == "path-not-proved"

    def test_se_08_is_not_another_one_by_a_file_that_points_there(self, other, tree):
        tree.write(".git", f"gitdir: {other.path}/.git\n")
        assert self.refused(tree)

    @pytest.mark.parametrize("linked", ["HEAD", "objects", "refs", "packed-refs"])
    def test_se_08_is_not_made_of_parts_of_another_one(self, other, tree, linked):
        tree.git("init", "-q")
        tree.write("a", "y")
        tree.commit()
        other.git("pack-refs", "--all")
        part = tree.path / ".git" / linked
        if part.exists():
            part.rename(part.with_name("aside"))
        part.symlink_to(other.path / ".git" / linked)
        assert self.refused(tree)

    @pytest.mark.parametrize("chain", [False, True])
    def test_se_08_borrows_no_objects_of_another_one(self, other, tree, chain):
        tree.git("init", "-q")
        tree.write("a", "y")
        tree.commit()
        tree.write(".git/mine/info/alternates", f"{other.path}/.git/objects\n")
        named = "../mine" if chain else f"{other.path}/.git/objects"
        tree.write(".git/objects/info/alternates", f"{named}\n")
        assert self.refused(tree)

    def test_se_08_is_no_worktree_of_another_one_that_does_not_know_it(self, other, tree, tmp_path):
        fake = tmp_path / "fake"
        fake.mkdir()
        (fake / "HEAD").write_text("ref: refs/heads/main\n")
        (fake / "commondir").write_text(f"{other.path}/.git\n")
        (fake / "gitdir").write_text(f"{tree.path}/.git\n")
        tree.write(".git", f"gitdir: {fake}\n")
        assert self.refused(tree)

    def test_is_sent_when_it_lies_in_its_tree_and_as_a_worktree_or_a_submodule(self, other, tmp_path, new_tree):
        assert self.overlay(other).entries
        other.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
        assert self.overlay(new_tree(tmp_path / "linked")).entries
        outer = new_tree(tmp_path / "outer")
        outer.git("init", "-q")
        outer.git("submodule", "add", "-q", str(other.path), "sub/module")
        assert self.overlay(new_tree(tmp_path / "outer/sub/module")).entries
