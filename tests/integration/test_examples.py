"""The examples build on this machine, cleanly, and a second build finds nothing to do."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def run(*words, cwd, **environment):
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def fresh_units(cwd):
    """(units that were fresh, units in all) of a cargo build."""
    text = run("cargo", "build", "--locked", "--message-format=json", cwd=cwd).stdout
    units = [json.loads(line) for line in text.splitlines() if '"compiler-artifact"' in line]
    return sum(unit["fresh"] for unit in units), len(units)


class TestHelloC:
    def test_builds_by_make_without_a_warning_and_then_has_nothing_to_do(self, project_copy):
        place = project_copy("hello-c")
        first = run("make", "-j2", cwd=place)
        assert "warning:" not in first.stdout + first.stderr
        assert run("./hello", "you", cwd=place).stdout.startswith("Hello, you!\n")
        assert run("make", cwd=place).stdout == "make: 'hello' is up to date.\n"

    def test_rebuilds_exactly_what_a_header_is_used_by(self, project_copy):
        place = project_copy("hello-c")
        run("make", cwd=place)
        with open(f"{place}/checksum.h", "a") as file:
            file.write("\n")
        lines = [line for line in run("make", cwd=place).stdout.splitlines() if " -c " in line]
        assert sorted(line.split()[-1] for line in lines) == ["checksum.c", "main.c"]

    def test_the_generated_header_follows_its_text(self, project_copy):
        place = project_copy("hello-c")
        run("make", cwd=place)
        Path(place, "messages.txt").write_text("HELLO Good day\nMARK .\n")
        run("make", cwd=place)
        assert run("./hello", cwd=place).stdout.startswith("Good day, world.\n")

    def test_builds_by_cmake_and_ninja_and_then_has_nothing_to_do(self, project_copy):
        place = project_copy("hello-c")
        run("cmake", "-S", ".", "-B", "build", "-G", "Ninja", cwd=place)
        first = run("ninja", "-C", "build", "-j2", cwd=place)
        assert "warning:" not in first.stdout
        assert run("build/hello", cwd=place).stdout.startswith("Hello, world!\n")
        assert "no work to do" in run("ninja", "-C", "build", cwd=place).stdout

    def test_clean_removes_every_product(self, project_copy):
        place = project_copy("hello-c")
        before = sorted(os.listdir(place))
        run("make", cwd=place)
        run("make", "clean", cwd=place)
        assert sorted(os.listdir(place)) == before


class TestTheWorkspace:
    def test_builds_without_a_warning_and_then_every_unit_is_fresh(self, project_copy):
        place = project_copy("workspace")
        first = run("cargo", "build", "--locked", cwd=place)
        assert "warning:" not in first.stderr
        assert run("target/debug/app", "you", cwd=place).stdout == "Hello, you! 2 words!, dictionary of 5\n"
        # itoa, shared-greeting, shout, words, its build script, app
        assert fresh_units(place) == (6, 6)

    def test_passes_its_tests_and_leaves_its_lock_file_alone(self, project_copy):
        place = project_copy("workspace")
        lock = Path(place, "Cargo.lock").read_bytes()
        assert "2 passed" in run("cargo", "test", "--locked", cwd=place).stdout
        assert Path(place, "Cargo.lock").read_bytes() == lock

    @pytest.mark.parametrize(
        ("edited", "rebuilt"), [("crates/words/src/lib.rs", 2), ("../shared-greeting/src/lib.rs", 2), ("crates/app/src/main.rs", 1)]
    )  # fmt: skip
    def test_rebuilds_exactly_the_dependants_of_an_edit(self, project_copy, edited, rebuilt):
        place = project_copy("workspace")
        run("cargo", "build", "--locked", cwd=place)
        with open(os.path.join(place, edited), "a") as file:
            file.write("// edited\n")
        fresh, units = fresh_units(place)
        assert units - fresh == rebuilt

    def test_is_readable_for_the_cargo_of_debian_12(self):
        lock = (CHECKOUT / "examples/workspace/Cargo.lock").read_text()
        assert "\nversion = 3\n" in lock  # 1.63 does not read version 4


def test_every_example_is_named_in_the_readme():
    table = (CHECKOUT / "examples/README.md").read_text()
    for entry in (CHECKOUT / "examples").iterdir():
        if entry.is_dir():
            assert f"`{entry.name}`" in table


@pytest.fixture(autouse=True)
def _tools():
    for tool in ("make", "cc", "cmake", "ninja", "cargo"):
        assert shutil.which(tool), f"{tool} is missing: ./dev setup installs it"
