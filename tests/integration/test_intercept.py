"""One decision for hook, shim, ``rch exec`` and ``rch explain``, seen on a real worker."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rch.agents.trial import sample
from rch.testing.fixtures import RchState

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

WHERE = """\
fn main() {
    println!("{}", if std::env::var_os("RCH_ON_WORKER").is_some() { "there" } else { "here" });
    for name in std::env::args().skip(1) {
        while !std::path::Path::new(&name).exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn where_am_i() {
    println!("{}", if std::env::var_os("RCH_ON_WORKER").is_some() { "there" } else { "here" });
}
"""


@pytest.fixture(scope="module")
def station(embedded_lab, lab_place):
    """One workstation for the whole file, with shims and hooks installed and rchd running."""
    state = RchState(os.path.join(lab_place, "intercept"), embedded_lab)
    for words in (("shim", "install"), ("daemon", "start")):
        done = state.run("rch", *words)
        assert done.returncode == 0, done
    yield state
    state.close()


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    place = tmp_path / "x"
    (place / "src").mkdir(parents=True)
    (place / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n')
    (place / "src" / "main.rs").write_text(WHERE)
    return place


def jobs(station) -> list[dict]:
    return json.loads(station.run("rch", "jobs", "--json").stdout)


def remote_since(station, before: list[dict]) -> list[dict]:
    seen = {job["id"] for job in before}
    return [job for job in jobs(station) if job["id"] not in seen and job["worker"] not in ("", "here")]


class TestCargoRun:
    def test_is_built_there_and_run_here_without_a_slot(self, station, crate, tmp_path, project_copy):
        before = jobs(station)
        flag = tmp_path / "flag"
        with subprocess.Popen(
            ["rch", "exec", "--", "cargo", "run", "-q", "--", str(flag)],
            cwd=crate, env=station.environment, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "here\n"
                (job,) = remote_since(station, before)
                assert (job["kind"], job["products"]) == ("cargo.run", "verified")
                # Every slot of the worker is free for somebody else.
                slots = json.loads(station.run("rch", "workers", "list", "--json").stdout)[0]["slots_total"]
                other = Path(project_copy("hello-c"))
                done = station.exec("make", f"-j{slots}", options=("--require-remote",), cwd=other)
                assert done.returncode == 0, done
                assert process.poll() is None
            finally:
                flag.touch()
                assert process.wait(60) == 0

    def test_by_an_alias_is_the_same(self, station, crate):
        (crate / ".cargo").mkdir()
        (crate / ".cargo" / "config.toml").write_text('[alias]\nxt = "run -q --bin x --"\n')
        before = jobs(station)
        done = station.exec("cargo", "xt", cwd=crate)
        assert (done.returncode, done.stdout) == (0, b"here\n"), done
        (job,) = remote_since(station, before)
        assert job["kind"] == "cargo.run"
        shown = json.loads(station.run("rch", "explain", "--json", "cargo xt", cwd=crate).stdout)
        assert shown["rewritten"] == "rch exec -- cargo xt"

    def test_without_a_full_return_is_here_throughout(self, station, crate):
        (crate / ".rch").mkdir()
        (crate / ".rch" / "config.toml").write_text('[artifacts]\nbuild_dir = "none"\n')
        before = jobs(station)
        done = station.exec("cargo", "run", "-q", cwd=crate)
        assert (done.returncode, done.stdout) == (0, b"here\n"), done
        assert remote_since(station, before) == []


class TestCargoTest:
    def test_runs_its_tests_there(self, station, crate):
        before = jobs(station)
        done = station.exec("cargo", "test", "-q", "--", "--nocapture", cwd=crate)
        assert done.returncode == 0, done
        assert b"there\n" in done.stdout
        assert [job["kind"] for job in remote_since(station, before)] == ["cargo.test"]

    def test_runs_them_here_where_the_configuration_says_so(self, station, crate):
        (crate / ".rch").mkdir()
        (crate / ".rch" / "config.toml").write_text('[execution]\nrun_tests = "local"\n')
        before = jobs(station)
        done = station.exec("cargo", "test", "-q", "--", "--nocapture", cwd=crate)
        assert done.returncode == 0, done
        assert b"here\n" in done.stdout
        (job,) = remote_since(station, before)
        assert job["kind"] == "cargo.test-here"


class TestARequirement:
    def test_b_07_of_a_standard_library_that_no_worker_has_is_the_reason(self, station, crate):
        before = jobs(station)
        done = station.exec("cargo", "build", "--target", "thumbv6m-none-eabi", cwd=crate)
        assert done.returncode != 0  # this machine has it neither, and cargo says so
        assert b"[rch] local: capability-missing: " in done.stderr
        assert b"no standard library of thumbv6m-none-eabi" in done.stderr
        assert remote_since(station, before) == []

    def test_b_07_of_one_that_is_there_is_met(self, station, crate):
        before = jobs(station)
        done = station.exec("cargo", "build", "-q", "--target", "x86_64-unknown-linux-gnu", cwd=crate)
        assert done.returncode == 0, done
        assert len(remote_since(station, before)) == 1


class TestADryRun:
    def test_b_08_prints_the_whole_story_and_runs_nothing(self, station, crate):
        before = jobs(station)
        done = station.exec("cargo", "build", options=("--dry-run",), cwd=crate)
        assert (done.returncode, done.stdout) == (0, b"")
        (line,) = done.stderr.decode().splitlines()
        name = station.lab.worker.name
        for part in (
            "cargo build",
            "offload",
            "cargo.build",
            "95 %",
            "only worker",
            f"root {crate}",
            f"worker {name} (",
            "slots free",
        ):
            assert part in line, line
        assert line.endswith("% faster than local (30.0s)") or "preferred over remote" in line
        assert not (crate / "target").exists()
        assert remote_since(station, before) == []

    def test_b_08_by_the_variable_runs_here_afterwards(self, station, crate):
        before = jobs(station)
        done = station.exec("cargo", "build", "-q", cwd=crate, env={"RCH_DRY_RUN": "1"})
        assert done.returncode == 0
        assert b"[rch] dry run: cargo build -q" in done.stderr
        assert (crate / "target").exists()
        assert remote_since(station, before) == []

    def test_b_08_of_what_stays_names_kind_and_reason(self, station, crate):
        (crate / ".rch").mkdir()
        (crate / ".rch" / "config.toml").write_text('[interception]\nexclude = ["cargo build"]\n')
        done = station.exec("cargo", "build", "--release", options=("--dry-run",), cwd=crate)
        line = done.stderr.decode()
        assert "cargo build --release · local · cargo.build · 100 % · excluded: " in line
        assert not (crate / "target").exists()


class TestPreflight:
    @pytest.mark.parametrize(
        ("spoil", "words", "code", "said"),
        [
            ('[package]\nversion = "1.0.0"\n', ("cargo", "build"), "invalid-manifest", "Cargo.toml"),
            (None, ("cargo", "build", "-p", "nobody"), "missing-dependency", "nobody"),
            (None, ("cargo", "run", "--bin", "nobody"), "invalid-target", "nobody"),
            (None, ("rustc", "nobody.rs"), "missing-file", "nobody.rs"),
        ],
    )  # fmt: skip
    def test_b_09_leaves_the_real_error_to_the_tool_here(self, station, crate, spoil, words, code, said):
        if spoil:
            (crate / "Cargo.toml").write_text(spoil)
        before = jobs(station)
        done = station.exec(*words, cwd=crate)
        assert done.returncode != 0
        assert f"[rch] local: preflight-{code}: " in done.stderr.decode()
        own = [line for line in done.stderr.decode().splitlines() if not line.startswith("[rch]")]
        assert any(said in line for line in own), done
        assert remote_since(station, before) == []

    def test_b_09_a_check_here_first_is_a_wish(self, station, crate):
        (crate / ".rch").mkdir()
        (crate / ".rch" / "config.toml").write_text("[execution]\npreflight_check = true\n")
        before = jobs(station)
        assert station.exec("cargo", "build", "-q", cwd=crate).returncode == 0
        assert len(remote_since(station, before)) == 1
        (crate / "src" / "main.rs").write_text("fn main() { nothing_like_it(); }\n")
        before = jobs(station)
        done = station.exec("cargo", "build", "-q", cwd=crate)
        assert done.returncode == 101
        assert b"[rch] local: preflight-syntax-error: " in done.stderr
        assert b"nothing_like_it" in done.stderr
        assert remote_since(station, before) == []


SWITCHES = {
    "nothing": ({}, ""),
    "RCH_BYPASS": ({"RCH_BYPASS": "1"}, ""),
    "RCH_ENABLED": ({"RCH_ENABLED": "0"}, ""),
    "RCH_LOCAL_ONLY": ({"RCH_LOCAL_ONLY": "1"}, ""),
    "RCH_ON_WORKER": ({"RCH_ON_WORKER": "1"}, ""),
    "a bad value": ({"RCH_BYPASS": "perhaps"}, ""),
    "excluded": ({}, '[interception]\nexclude = ["make -j*"]\n'),
    "another is excluded": ({}, '[interception]\nexclude = ["make docs"]\n'),
    "toolchain off": ({}, "[interception.toolchains]\nmake = false\n"),
    "threshold": ({}, "[interception]\nconfidence_threshold = 0.9\n"),
    "project off": ({}, "[project]\nenabled = false\n"),
    "local_only": ({}, "[project]\nlocal_only = true\n"),
    "a bad file": ({}, "structure = ["),
}
TOLD = {
    "RCH_LOCAL_ONLY": ["local-only"],
    "local_only": ["local-only"],
    "a bad value": ["bad-environment"],
    "threshold": ["below-threshold"],
    "a bad file": ["bad-config"],
}


class TestHookShimExecAndExplain:
    """The same build, asked for in each way, with each switch."""

    def by_exec(self, station, project, env):
        return station.exec("make", "-j2", cwd=project, env=env)

    def by_shim(self, station, project, env):
        path = f"{station.state_dir}/shims:{station.environment['PATH']}"
        return station.run("sh", "-c", "make -j2", cwd=project, env={**env, "PATH": path})

    def by_hook(self, station, project, env):
        """The line that the installed hook makes of it, run by the agent's shell."""
        asked = json.dumps(sample("codex", "make -j2", str(project))).encode()
        found = station.run(sys.executable, "-m", "rch", "hook", "codex", cwd=project, data=asked, env=env)
        assert found.returncode == 0
        line = json.loads(found.stdout)["hookSpecificOutput"]["updatedInput"]["command"] if found.stdout else "make -j2"
        return station.run("bash", "-c", line, cwd=project, env=env)

    @pytest.mark.parametrize("name", SWITCHES)
    def test_ic_09_agree(self, station, project_copy, tmp_path, name):
        env, config = SWITCHES[name]
        # Its HOME has no rules of an agent, so the hook may rewrite whatever it wants to.
        env = {**env, "HOME": station.directory}
        went = {}
        reasons = {}
        example = project_copy("hello-c")
        for way in (self.by_exec, self.by_shim, self.by_hook):
            project = tmp_path / way.__name__
            shutil.copytree(example, project)
            if config:
                (project / ".rch").mkdir()
                (project / ".rch" / "config.toml").write_text(config)
            before = jobs(station)
            done = way(station, project, env)
            assert done.returncode == 0, (way, done)
            program = project / "hello"
            assert program.stat().st_mode & stat.S_IXUSR
            went[way.__name__] = len(remote_since(station, before))
            reasons[way.__name__] = sorted(
                line.split(": ")[1] for line in done.stderr.decode().splitlines() if line.startswith("[rch] local: ")
            )
            shown = station.run("rch", "explain", "--json", "make -j2", cwd=project, env=env)
            if shown.returncode == 0:
                (segment,) = json.loads(shown.stdout)["segments"]
                went["explain"] = int(segment["decision"] == "offload")
        assert len(set(went.values())) == 1, went
        assert reasons["by_exec"] == reasons["by_shim"], reasons
        assert reasons["by_hook"] == reasons["by_exec"] == TOLD.get(name, []), reasons
        assert went["by_exec"] == (name in ("nothing", "another is excluded"))


class TestAMakefileWith50Compilations:
    def test_goes_out_once_as_a_whole(self, station, tmp_path):
        """Through the shims, the worker's make calls the worker's gcc; here nobody is asked a second time."""
        names = [f"f{i}" for i in range(50)]
        for name in names:
            (tmp_path / f"{name}.c").write_text(f"int {name}(void) {{ return 1; }}\n")
        objects = " ".join(f"{name}.o" for name in names)
        (tmp_path / "Makefile").write_text(f"all: {objects}\n%.o: %.c\n\tgcc -c $< -o $@\n")
        path = f"{station.state_dir}/shims:{station.environment['PATH']}"
        before = jobs(station)
        done = station.run("sh", "-c", "make -j4", cwd=tmp_path, env={"PATH": path})
        assert done.returncode == 0, done
        assert len(list(tmp_path.glob("*.o"))) == 50
        (job,) = remote_since(station, before)
        assert job["kind"] == "make"
        # And the same words here find nothing to do.
        again = subprocess.run(["make", "-q"], cwd=tmp_path, timeout=60, check=False)
        assert again.returncode == 0


def test_a_configure_script_stays_here_and_asks_nobody(station, tmp_path):
    """cc called by ./configure: the real compiler at once, no client started, no job."""
    script = tmp_path / "configure"
    script.write_text(
        "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9 10; do\n  echo 'int main(void) { return 0; }' >conftest.c\n"
        "  cc -o conftest conftest.c && ./conftest || exit 1\n  cp conftest.c probe.c\n  gcc -c probe.c || exit 1\ndone\n"
        "cc --version >/dev/null && echo ok\n"
    )
    script.chmod(0o755)
    path = f"{station.state_dir}/shims:{station.environment['PATH']}"
    before = jobs(station)
    begun = time.monotonic()
    done = station.run("sh", "-c", "./configure", cwd=tmp_path, env={"PATH": path})
    took = time.monotonic() - begun
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok\n", b""), done
    begun = time.monotonic()
    assert subprocess.run(["./configure"], cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 0
    # 21 starts of a shim are some 50 ms; 21 starts of a client, or 10 jobs, would be seconds.
    assert took < 10 * (time.monotonic() - begun) + 1
    assert jobs(station) == before
