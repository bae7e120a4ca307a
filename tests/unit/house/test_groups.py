"""Tests that share a lab run in one process; xdist and pytest have disagreed about that in silence."""

import subprocess
import sys

GROUPED = """\
import os, pytest

@pytest.mark.xdist_group("lab")
@pytest.mark.parametrize("number", range(8))
def test_of_a_lab(number):
    with open("processes", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""

# Groups of one test beside others: with those xdist's own scheduler waits for ever.
CRASHING = """\
import os, signal, pytest

def in_group(name):
    return pytest.mark.xdist_group(name)

@in_group("before")
@pytest.mark.parametrize("number", range(3))
def test_before(number): pass

@in_group("crash")
def test_that_kills_its_process(): os.kill(os.getpid(), signal.SIGKILL)

@in_group("crash")
def test_of_the_same_group(): pass

@in_group("a")
def test_a(): pass

@in_group("b")
def test_b(): pass

@in_group("c")
def test_c(): pass
"""


def pytest_of(place, text, processes=2):
    (place / "pytest.ini").touch()
    (place / "test_grouped.py").write_text(text)
    words = ["-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "-p", "rch.testing.fixtures"]
    return subprocess.run(
        [sys.executable, *words, "--numprocesses", str(processes), "--dist", "loadgroup"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestAGroup:
    def test_stays_in_one_process(self, tmp_path):
        done = pytest_of(tmp_path, GROUPED)
        assert done.returncode == 0, done.stdout
        seen = (tmp_path / "processes").read_text().splitlines()
        assert (len(seen), len(set(seen))) == (8, 1)


class TestATestThatKillsItsProcess:
    """It is one failure with a name, and the rest of the run goes on; xdist's own scheduler never came to an end."""

    def test_is_the_only_one_that_fails(self, tmp_path):
        done = pytest_of(tmp_path, CRASHING)
        assert done.returncode == 1, done.stdout
        assert "1 failed, 7 passed" in done.stdout.splitlines()[-1]
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        assert len(failed) == 1
        assert failed[0].startswith("FAILED test_grouped.py::test_that_kills_its_process@crash")

    def test_is_followed_by_a_process_that_runs_all_the_rest(self, tmp_path):
        # One process and groups of one test: it would be given a group that is done, or one test and never a second.
        text = "import os, pytest\n" + "".join(
            f'@pytest.mark.xdist_group("{number}")\ndef test_{number}(): {"os._exit(9)" if number in {3, 6} else "pass"}\n'
            for number in range(8)
        )
        done = pytest_of(tmp_path, text, processes=1)
        assert done.returncode == 1, done.stdout
        assert "2 failed, 6 passed" in done.stdout.splitlines()[-1]
