"""Keys and variables that say what travels, how the job runs and what comes back."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest


def git(here: Any, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", *words],
        cwd=here.project, check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip


def make_crate(here: Any) -> None:
    """A binary crate without dependencies."""
    (here.project / "src").mkdir()
    (here.project / "src" / "main.rs").write_text('fn main() { println!("hi"); }\n')
    (here.project / "Cargo.toml").write_text('[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n')
    (here.project / "Cargo.lock").write_text('version = 3\n\n[[package]]\nname = "tiny"\nversion = "0.1.0"\n')


class TestWhatTravels:
    """transfer.exclude.patterns, exclude_extra, force_include, git, secret_scan, max_transfer_size_mb, max_size_mb."""

    def seen(self, here: Any) -> set[str]:
        ended = here.on("a", "find", ".", "-type", "f", "-not", "-path", "./.git/*")
        assert ended.status == 0, ended.err
        return set(ended.out.split())

    def test_is_told_by_the_patterns_of_both_files(self, here: Any) -> None:
        (here.project / "node_modules").mkdir()
        for name in ("kept", "big.bin", "x.pdb", "node_modules/m.js"):
            (here.project / name).write_text(name)
        usual, key = {"./kept", "./big.bin", "./x.pdb"}, "./.rch/config.toml"
        extra = "[transfer]\nexclude_extra = ['*.pdb']\nforce_include = ['node_modules/m.js']\n"
        assert self.seen(here) == usual
        here.user("[transfer.exclude]\npatterns = ['*.bin']\n")
        assert self.seen(here) == {"./kept", "./x.pdb", "./node_modules/m.js"}
        here.user("")
        here.write_project(extra)
        assert self.seen(here) == {"./kept", "./big.bin", key}
        here.write_project(extra, trusted=True)
        assert self.seen(here) == {"./kept", "./big.bin", "./node_modules/m.js", key}
        here.user("[transfer]\nforce_include = ['node_modules/m.js']\n")
        here.write_project("")
        assert self.seen(here) == usual | {"./node_modules/m.js", key}

    def test_of_git_is_nothing_the_head_or_all(self, here: Any) -> None:
        (here.project / "f").write_text("content")
        git(here, "init", "-q")
        git(here, "add", "f")
        git(here, "commit", "-qm", "first")
        head = git(here, "rev-parse", "HEAD")
        answers = {}
        for policy in ("none", "head", "full"):
            here.user(f"[transfer]\ngit = '{policy}'\n")
            answers[policy] = (
                here.on("a", "git", "rev-parse", "HEAD").out,
                here.on("a", "git", "show", "HEAD:f").out,
            )
        assert answers == {"none": ("", ""), "head": (head, ""), "full": (head, "content")}

    def test_e_6_is_nothing_while_a_scan_is_asked_for(self, here: Any) -> None:
        here.makefile("echo built")
        for file in (here.user, here.write_project):
            file("[transfer]\nsecret_scan = true\n")
            ended = here.exec("make")
            assert (ended.status, ended.out) == (3, "")
            assert ended.err.startswith("rch: error[Refused] transfer.secret_scan is on")
            file("")
        assert here.exec("make").where == "b"

    def test_a_17_is_no_more_than_the_limit_of_the_user_or_less_by_the_project(self, here: Any) -> None:
        here.makefile("echo built")
        (here.project / "large").write_bytes(os.urandom(1_500_000))
        here.user("[transfer]\nmax_transfer_size_mb = 1\n")
        ended = here.exec("make")
        assert (ended.where, ended.reason) == ("here", "too-large")
        assert "large" in ended.err
        here.user("[transfer]\nmax_transfer_size_mb = 2\n")
        here.write_project("[transfer]\nmax_size_mb = 1\n")
        assert here.exec("make").reason == "too-large"
        here.write_project("[transfer]\nmax_size_mb = 2\n")
        assert here.exec("make").where == "b"


class TestTheRun:
    """execution.*."""

    def test_ends_with_124_at_its_limit(self, here: Any) -> None:
        for file in (here.user, here.write_project):
            file("[execution]\ntimeout_sec = 1\n")
            assert here.on("a", "sleep", "60").status == 124
            file("")
        assert here.on("a", "true").status == 0

    @pytest.mark.parametrize("streams", [True, False])
    def test_shows_its_output_at_once_or_at_the_end(self, here: Any, streams: bool) -> None:
        here.user(f"[execution]\nstreaming_output = {str(streams).lower()}\n")
        words = ("rch", "exec", "--worker", "a", "--", "sh", "-c", "echo one; echo two >&2; read x; echo three")
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=here.project,
            env=here.env,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            if streams:
                assert child.stdout.readline() == b"one\n"
            else:
                until = time.monotonic() + 60
                while not any(job["state"] == "running" for job in here.jobs()):
                    assert time.monotonic() < until
                assert not select.select([child.stdout], [], [], 0.5)[0]
            child.stdin.write(b"\n")
            child.stdin.close()
            rest = child.stdout.read()
        assert rest == b"two\nthree\n" if streams else b"one\ntwo\nthree\n"
        assert child.returncode == 0

    def test_has_the_slots_of_the_key_and_no_more_than_it_asks_for_itself(self, here: Any) -> None:
        here.makefile("nproc")
        here.user("[workers]\nallowed = ['a']\n")

        def granted(*words: str) -> int:
            ended = here.exec("make", *words)
            slots: int = here.job(ended)["slots"]
            assert ended.out == f"{min(slots, os.cpu_count() or 1)}\n"
            return slots

        assert granted("-j9") == 2
        here.write_project("[execution]\ncores = 1\n")
        assert granted("-j9") == 1
        here.write_project("[execution]\ncores = 2\n")
        assert granted("-j9") == 2
        assert granted("-j1") == 1
        assert granted() == 1  # without -j make runs one thing at a time
        here.write_project("[execution]\ncores = 64\n")
        assert granted("-j99") == 2

    def test_has_the_slots_of_the_key_instead_of_the_estimate(self, here: Any) -> None:
        make_crate(here)
        here.user("[workers]\nallowed = ['a']\n")
        assert here.job(here.exec("cargo", "check"))["slots"] == 2
        here.write_project("[execution]\ncores = 1\n")
        assert here.job(here.exec("cargo", "check"))["slots"] == 1

    def test_has_the_variables_of_the_files_there_and_here(self, here: Any) -> None:
        here.makefile('echo "$${ONE:-no} $${TWO:-no}"')
        here.user("[execution.env]\nONE = 'user'\n")
        here.write_project("[execution.env]\nONE = 'project'\nTWO = 'project'\n")
        blocked = {"RCH_WORKER": "b", "RCH_TAG": "heavy"}
        assert [here.exec("make").out, here.exec("make", env=blocked).out] == ["user no\n"] * 2
        assert here.run("rch", "config", "trust").returncode == 0
        assert [here.exec("make").out, here.exec("make", env=blocked).out] == ["project project\n"] * 2

    def test_has_a_network_of_its_own_where_it_shall_have_none(self, here: Any) -> None:
        ours = os.readlink("/proc/self/ns/net")
        assert here.on("a", "readlink", "/proc/self/ns/net").out.strip() == ours
        for file in (here.user, here.write_project):
            file("[execution]\nnetwork = 'none'\n")
            assert here.on("a", "readlink", "/proc/self/ns/net").out.strip() != ours
            file("")

    def test_waits_for_a_slot_as_long_as_it_may_or_not_at_all(self, here: Any) -> None:
        here.makefile("echo built")
        with subprocess.Popen(
            ["rch", "exec", "--worker", "b", "--", "sleep", "100"], cwd=here.top, env=here.env, stderr=subprocess.PIPE
        ) as holder:
            until = time.monotonic() + 60
            while not any(job["state"] == "running" for job in here.jobs()):
                assert time.monotonic() < until
            for text, limit in (("queue_wait_sec = 1", 1), ("enable_queueing = false", 0), ("queue_wait_sec = 0", 0)):
                here.user(f"[workers]\nallowed = ['b']\n[execution]\n{text}\n")
                ended = here.exec("make")
                assert (ended.where, ended.reason) == ("here", "queue-timeout")
                assert f"no free slots within {limit} s" in ended.err
            holder.terminate()

    @pytest.mark.parametrize("key", [None, "true"])
    def test_sees_the_callers_colours_and_none_that_we_make_up(self, here: Any, key: str | None) -> None:
        """A-24, and NO_COLOR, TERM, COLORTERM, CLICOLOR, CLICOLOR_FORCE, FORCE_COLOR, CARGO_TERM_COLOR, GCC_COLORS."""
        names = (
            "NO_COLOR",
            "TERM",
            "COLORTERM",
            "CLICOLOR",
            "CLICOLOR_FORCE",
            "FORCE_COLOR",
            "CARGO_TERM_COLOR",
            "GCC_COLORS",
        )
        here.makefile("env | grep -E 'COLOR|TERM' | sort")
        given = {name: f"x-{name}" for name in names} if key else {"TERM": ""}
        ended = here.exec("make", env=given)
        assert ended.where == "b"
        assert set(ended.out.split()) == ({f"{name}=x-{name}" for name in names} if key else {"TERM="})

    def test_has_none_of_our_variables_but_those_of_a_job(self, here: Any) -> None:
        ended = here.on("a", "env", env={"RCH_VERBOSE": "0", "RCH_COMPRESSION": "3", "RCH_REQUEST_TIMEOUT": "20"})
        ours = {line.partition("=")[0] for line in ended.out.splitlines() if line.startswith("RCH_")}
        assert ours == {"RCH_ON_WORKER", "RCH_JOB"}
        assert f"RCH_JOB={ended.job}\n" in ended.out
        assert "RCH_ON_WORKER=1\n" in ended.out


class TestWhatComesBack:
    """artifacts.*, RCH_NO_CACHE."""

    @pytest.fixture
    def crate(self, here: Any) -> Any:
        make_crate(here)
        return here

    def built(self, here: Any, *words: str) -> set[str]:
        shutil.rmtree(here.project / "target", ignore_errors=True)
        ended = here.exec("cargo", *words)
        assert (ended.status, ended.where) == (0, "b"), ended.err
        return {str(p.relative_to(here.project)) for p in (here.project / "target").rglob("*") if p.is_file()}

    def test_of_the_build_directory_is_what_the_key_says(self, crate: Any) -> None:
        full = self.built(crate, "build")
        assert "target/debug/tiny" in full
        assert any(".fingerprint" in path for path in full)
        for file in (crate.user, crate.write_project):
            file("[artifacts]\nbuild_dir = 'none'\n")
            assert self.built(crate, "build") == set()
            file("[artifacts]\nbuild_dir = 'outputs'\n")
            outputs = self.built(crate, "build")
            assert "target/debug/tiny" in outputs
            assert not any(".fingerprint" in path for path in outputs)
            file("")
        assert self.built(crate, "check") == set()
        crate.user("[artifacts]\nbuild_dir = 'full'\n")
        assert self.built(crate, "check") != set()

    def test_a_22_are_the_extra_patterns_whatever_else(self, crate: Any) -> None:
        crate.write_project("[artifacts]\nextra_patterns = ['target/**/*.d']\nbuild_dir = 'none'\n")
        returned = self.built(crate, "build")
        assert returned
        assert all(path.endswith(".d") for path in returned)

    def test_leaves_nothing_there_where_that_is_asked_for(self, here: Any) -> None:
        here.makefile("echo product > product")

        def there() -> list[Path]:
            # os.walk passes over what the worker takes away meanwhile.
            walked = os.walk(here.state / "local-worker" / "b" / "roots")
            return [Path(parent) / "product" for parent, _, files in walked if "product" in files]

        assert here.exec("make").where == "b"
        assert any(path.parent.name == "tree" for path in there())
        before = there()
        here.user("[artifacts]\ncleanup_remote = true\n")
        (here.project / "product").unlink()
        assert here.exec("make").where == "b"
        assert (here.project / "product").read_text() == "product\n"
        assert not set(before) & set(there())

    def test_a_12_without_cache_starts_there_from_what_is_here_alone(self, here: Any) -> None:
        (here.project / "Makefile").write_text("all: cached\n\t@cat cached\ncached:\n\t@echo made; echo x > cached\n")
        (here.project / ".gitignore").write_text("cached\n")
        assert here.exec("make").out == "made\nx\n"
        assert here.exec("make").out == "x\n"
        (here.project / "cached").unlink()
        assert here.exec("make", env={"RCH_NO_CACHE": "1"}).out == "made\nx\n"
        assert here.job(here.exec("make", env={"RCH_NO_CACHE": "1"}))["pushed"]["files"] >= 3
        assert here.job(here.exec("make"))["pushed"]["files"] == 0


class TestHooks:
    """hooks.*, RCH_EXIT_STATUS (A-20)."""

    def test_run_here_before_the_push_and_after_placement_once(self, here: Any) -> None:
        here.makefile("cat generated > product", "exit 3")
        hooks = "pre_transfer = 'echo made > generated; echo x >> runs'\npost_compile = 'cat product; echo $RCH_EXIT_STATUS'\n"
        here.user(f"[hooks]\n{hooks}")
        (here.project / "runs").write_text("")
        ended = here.on("a", "make")
        assert ended.status == 2
        assert "made\n2\n" in ended.err
        assert (here.project / "runs").read_text() == "x\n"
        assert not (here.project / "generated").exists() or (here.project / "generated").read_text() == "made\n"

    def test_that_fail_before_the_push_keep_the_command_here(self, here: Any) -> None:
        here.makefile("echo built")
        here.user("[hooks]\npre_transfer = 'exit 7'\n")
        ended = here.exec("make")
        assert (ended.out, ended.where, ended.reason) == ("built\n", "here", "hook-failed")
        assert "status 7" in ended.err

    def test_run_before_a_run_here_that_could_have_gone_out(self, here: Any) -> None:
        here.makefile("cat fallen || true")
        here.user("[hooks]\non_fallback = 'echo fell > fallen'\n[workers]\nblocked = ['a', 'b', 'c']\n")
        assert here.exec("make").out == "fell\n"
        (here.project / "fallen").unlink()
        here.exec("true")
        assert not (here.project / "fallen").exists()

    def test_of_a_project_wait_for_trust(self, here: Any) -> None:
        here.makefile("echo built")
        here.write_project("[hooks]\npost_compile = 'echo hooked'\n")
        assert "hooked" not in here.exec("make").err
        assert here.run("rch", "config", "trust").returncode == 0
        assert "hooked" in here.exec("make").err


class TestTheProject:
    """project.id, project.name."""

    def test_has_the_name_and_the_identity_of_its_file(self, here: Any) -> None:
        here.makefile("echo built")
        job = here.job(here.exec("make"))
        assert job["project_name"] == here.project.name
        here.write_project("[project]\nid = 'the-app'\nname = 'The App'\n")
        job = here.job(here.exec("make"))
        assert (job["project"], job["project_name"]) == ("the-app", "The App")
        assert "The App" in here.run("rch", "jobs").stdout

    def test_of_two_checkouts_with_one_id_share_no_tree(self, here: Any) -> None:
        here.makefile("cat word")
        here.write_project("[project]\nid = 'the-app'\n")
        (here.project / "word").write_text("one\n")
        second = here.top / "second"
        shutil.copytree(here.project, second)
        (second / "word").write_text("two\n")
        assert [here.exec("make").out, here.exec("make", cwd=second).out, here.exec("make").out] == [
            "one\n",
            "two\n",
            "one\n",
        ]
        shutil.rmtree(second)
