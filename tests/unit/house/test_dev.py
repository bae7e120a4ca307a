"""./dev: plain POSIX sh, no questions, nothing done twice."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
DEV = CHECKOUT / "dev"


def run(*words: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in {"PATH", "RCH_DEV_PYTHON"}}
    env |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    return subprocess.run(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def bare(tmp_path):
    """A copy of ./dev and its inputs in a directory without an environment."""
    for name in ("dev", "pyproject.toml", "constraints.txt"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path


class TestTheShellPrograms:
    @pytest.mark.parametrize("path", [DEV, CHECKOUT / ".ci/run"], ids=["dev", "ci"])
    def test_are_clean_posix(self, path):
        assert path.read_text().startswith("#!/bin/sh\n")
        assert os.access(path, os.X_OK)
        program = Path(os.sys.executable).parent / "shellcheck"
        checked = run(str(program), "--shell=sh", "--severity=style", str(path))
        assert checked.returncode == 0, checked.stdout


class TestHelp:
    def test_names_every_verb(self):
        text = run("./dev", "help").stdout
        for verb in re.findall(r"^  ([a-z]+)\)$", DEV.read_text(), re.MULTILINE):
            assert f"./dev {verb}" in text or f"; ./dev {verb}" in text, verb

    def test_is_what_an_unknown_verb_shows_with_status_2(self):
        done = run("./dev", "bogus")
        assert done.returncode == 2
        assert "no such verb: bogus" in done.stderr

    def test_works_from_another_directory_and_through_a_link(self, tmp_path):
        (tmp_path / "a b").mkdir()
        assert run(str(DEV), "help", cwd=tmp_path / "a b").returncode == 0


class TestSetupThatIsDone:
    def test_changes_nothing_and_starts_no_python(self):
        stamp = CHECKOUT / ".venv/.rch-inputs"
        assert stamp.exists(), "run ./dev setup first"
        before = stamp.stat()
        # A Python that fails when it is started: a second setup must not need one.
        done = run("./dev", "setup", RCH_DEV_PYTHON="/bin/false")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert stamp.stat().st_mtime_ns == before.st_mtime_ns


class TestAMachineThatLacksSomething:
    """The functions of ./dev, with the machine's answers replaced."""

    @staticmethod
    def call(place: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        functions = DEV.read_text().split("verb=${1:-help}")[0]
        (place / "probe").write_text(f"{functions}\n{script}\n")
        return run("sh", "./probe", cwd=place, **environment)

    def test_python_is_told_which_command_brings_it(self, bare):
        done = self.call(bare, "find_python() { return 1; }; usable_python")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "apt install python3 python3-venv" in done.stderr

    def test_venv_without_root_is_told_the_same(self, bare):
        done = self.call(bare, "can_make_venv() { return 1; }; root_prefix() { echo no; }; usable_python")
        assert done.returncode == 1
        assert "apt install python3-venv" in done.stderr

    def test_packages_without_root_are_named_in_one_message(self, bare):
        script = "root_prefix() { echo no; }; system 'no-such-a:first sh:dash no-such-b:second'"
        done = self.call(bare, script)
        assert done.returncode == 1
        assert done.stderr == "dev: missing system packages: first second - as root: apt install first second \n"

    def test_a_python_that_is_too_old_is_passed_over(self, bare):
        old = bare / "python3"
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
        done = self.call(bare, "find_python || echo none", PATH=f"{bare}:/usr/bin:/bin")
        assert done.stdout.strip()
        assert str(bare) not in done.stdout

    def test_an_environment_that_was_moved_here_is_made_anew(self, bare):
        (bare / ".venv").mkdir()
        (bare / ".venv/pyvenv.cfg").write_text("command = /usr/bin/python3 -m venv --clear /elsewhere/.venv\n")
        assert self.call(bare, "venv_place").stdout == "/elsewhere/.venv\n"


class TestCiRun:
    def test_runs_dev_test_ends_with_the_closing_line_and_passes_the_status_on(self, tmp_path):
        (tmp_path / ".ci").mkdir()
        shutil.copy(CHECKOUT / ".ci/run", tmp_path / ".ci/run")
        fake = tmp_path / "dev"
        fake.write_text(
            '#!/bin/sh\necho "$@"\nread -r line && echo "read $line"\necho "=== 1 failed, 2 passed in 0.1s ==="\necho after\nexit 3\n'
        )
        fake.chmod(0o755)
        done = run(".ci/run", "--fast", cwd=tmp_path)
        assert done.returncode == 3
        lines = done.stdout.splitlines()
        assert lines[0] == "test --fast"
        assert lines[-1] == "=== 1 failed, 2 passed in 0.1s ==="
        assert not [line for line in lines if line.startswith("read")]

    def test_says_so_when_pytest_never_ended(self, tmp_path):
        (tmp_path / ".ci").mkdir()
        shutil.copy(CHECKOUT / ".ci/run", tmp_path / ".ci/run")
        (tmp_path / "dev").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "dev").chmod(0o755)
        done = run(".ci/run", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "ci: pytest did not come to an end (status 1)"

    def fake(self, tmp_path, first, second):
        """A ./dev that ends with *first* (lines, status), and with *second* when only failures are to run."""
        (tmp_path / ".ci").mkdir()
        shutil.copy(CHECKOUT / ".ci/run", tmp_path / ".ci/run")
        script = f"#!/bin/sh\ncase $* in *last-failed*) printf '{second[0]}'; exit {second[1]} ;; esac\n"
        (tmp_path / "dev").write_text(script + f"printf '{first[0]}'\nexit {first[1]}\n")
        (tmp_path / "dev").chmod(0o755)
        return run(".ci/run", cwd=tmp_path)

    @pytest.mark.parametrize("closing", ["1 failed, 2 passed", "2 passed, 1 error", "1 failed, 2 passed, 19 errors"])
    def test_looks_once_more_at_a_handful_of_failures_and_names_them(self, tmp_path, closing):
        kind = "FAILED" if "failed" in closing else "ERROR"
        first = (f"{kind} tests/x.py::test_race - no\\n=== {closing} in 0.1s ===\\n", 1)
        done = self.fake(tmp_path, first, ("=== 1 passed in 0.1s ===\\n", 0))
        assert done.returncode == 0
        assert "tests/x.py::test_race" in done.stdout.splitlines()
        assert f"ci: first run: === {closing} in 0.1s ===" in done.stdout

    @pytest.mark.parametrize(
        "first",
        [
            ("=== 21 failed, 2 passed in 0.1s ===\\n", 1),
            ("=== 20 failed, 2 passed, 1 error in 0.1s ===\\n", 1),
            ("=== 2 passed, 21 errors in 0.1s ===\\n", 1),
            ("dev: lint failed: mypy\\n=== 1 failed, 2 passed in 0.1s ===\\n", 1),
            ("=== xdist: maximum crashed workers reached: 8 ===\\n=== 9 failed, 2 passed in 0.1s ===\\n", 1),
        ],
    )
    def test_but_not_where_it_is_no_bad_luck(self, tmp_path, first):
        assert self.fake(tmp_path, first, ("=== 1 passed in 0.1s ===\\n", 0)).returncode == 1

    def test_fails_when_it_fails_again(self, tmp_path):
        first = ("FAILED tests/x.py::t\\n=== 1 failed in 0.1s ===\\n", 1)
        assert self.fake(tmp_path, first, ("=== 1 failed in 0.1s ===\\n", 1)).returncode == 1
