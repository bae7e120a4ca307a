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


class TestAGroup:
    def test_stays_in_one_process(self, tmp_path):
        (tmp_path / "pytest.ini").touch()
        (tmp_path / "test_grouped.py").write_text(GROUPED)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses", "2"]
        done = subprocess.run(
            [*words, "--dist", "loadgroup"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout
        seen = (tmp_path / "processes").read_text().splitlines()
        assert (len(seen), len(set(seen))) == (8, 1)
