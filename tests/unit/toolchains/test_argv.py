"""What the pipeline asks of a command that goes out: cores, the part that runs there, targets."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from rch.intercept import classify_argv
from rch.intercept.decision import Policy
from rch.toolchains import FREE_COMMAND, TOOLCHAINS, build_argv, cores_wanted, kind_named, rust_targets

CWD = "/home/me/app"
ALL_ON = Policy(toolchains={tool.name: True for tool in TOOLCHAINS})


@pytest.mark.parametrize(
    ("line", "cores"),
    [
        ("make", 1),
        ("make -j", None),
        ("make -j4", 4),
        ("make -j 4 all", 4),
        ("make --jobs=3", 3),
        ("make -j2 -j6", 6),
        ("make -kj4", 4),
        ("cargo build", None),
        ("cargo build -j4", 4),
        ("cargo +nightly build --jobs 2", 2),
        ("cargo test -j=3", None),  # cargo says what is wrong with it
        ("cargo build --jobs default", None),
        ("cargo nextest run --build-jobs 3", 3),
        ("ninja -j8", 8),
        ("ninja", None),
        ("cmake --build b -j4", 4),
        ("cmake --build b --parallel 3", 3),
        ("cmake --build b -- -j5", 5),
        ("cmake --build b", None),
        ("meson compile -j 2", 2),
        ("go build -p 3 ./...", 3),
        ("go test ./...", None),
        ("gcc -c x.c", 1),
        ("tsc --noEmit", 1),
        ("pytest -n 4", 4),
        ("pytest -n auto", None),
        ("pytest", 1),
        ("ctest -j3", 3),
        ("ctest", 1),
        ("mvn test -T 4", 4),
        ("mvn test -T 1C", None),
        ("make -j99999999999999999999", 999999),
        ("make -j0", None),
    ],
)
def test_c_09_cores_are_what_the_words_ask_for(line: str, cores: int | None) -> None:
    segment = classify_argv(shlex.split(line), CWD, ALL_ON)
    kind = segment.kind or kind_named("cargo.test")
    assert cores_wanted(segment.argv, kind) == cores


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("cargo run", "cargo build"),
        ("cargo run -- --config a", "cargo build"),
        ("cargo run input.txt --verbose", "cargo build"),
        ("cargo +nightly -q run --release --bin x -- a b", "cargo +nightly -q build --release --bin x"),
        ("cargo r -p cli -j2 sub", "cargo build -p cli -j2"),
        ("cargo run --features 'a b' -- run", "cargo build --features 'a b'"),
    ],
)
def test_cargo_run_is_a_build_there(line: str, there: str) -> None:
    segment = classify_argv(shlex.split(line), CWD, Policy())
    assert segment.kind is not None
    assert segment.kind.run_locally_after
    assert build_argv(segment.argv, segment.kind) == tuple(shlex.split(there))


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("cargo test", "cargo test --no-run"),
        ("cargo test -p core name -- --nocapture", "cargo test -p core name --no-run"),
    ],
)
def test_tests_that_run_here_are_built_there(line: str, there: str) -> None:
    segment = classify_argv(shlex.split(line), CWD, Policy(run_tests="local"))
    assert segment.kind is not None
    assert build_argv(segment.argv, segment.kind) == tuple(shlex.split(there))


def test_every_other_kind_runs_there_as_it_is() -> None:
    argv = ("cargo", "test", "--", "run")
    assert build_argv(argv, kind_named("cargo.test")) == argv
    assert build_argv(("make",), FREE_COMMAND) == ("make",)


def test_b_07_target_triples_are_requirements() -> None:
    argv = ("cargo", "+nightly", "build", "--target", "wasm32-unknown-unknown", "--target=x86_64-unknown-linux-musl")
    assert rust_targets(argv, kind_named("cargo.build")) == ("wasm32-unknown-unknown", "x86_64-unknown-linux-musl")
    assert rust_targets(("rustc", "--target", "t", "x.rs"), kind_named("rustc")) == ("t",)
    assert rust_targets(("make", "--target", "t"), kind_named("make")) == ()


def test_b_07_a_standard_library_that_the_build_makes_itself_is_none() -> None:
    build = kind_named("cargo.build")
    assert rust_targets(("cargo", "build", "-Zbuild-std=core", "--target", "t"), build) == ()
    assert rust_targets(("cargo", "build", "--target", "mine.json"), build) == ()


def test_ex_07_only_builds_and_checks_are_repeated() -> None:
    repeatable = {kind.name for tool in TOOLCHAINS for kind in tool.kinds if kind.repeatable}
    assert not {name for name in repeatable if name.endswith((".test", ".bench", ".nextest")) or name == "ctest"}
    assert not FREE_COMMAND.repeatable


def test_sp_10_native_kinds_send_ignored_inputs() -> None:
    for tool in ("make", "cmake", "ninja", "meson", "cc"):
        kinds = next(one.kinds for one in TOOLCHAINS if one.name == tool)
        assert all(kind.ignored_inputs for kind in kinds)


def test_te_02_requirements_follow_the_kind() -> None:
    assert kind_named("go.build").tools == ("go",)
    assert kind_named("cargo.check").tools == ("rust",)
    assert kind_named("make").tools == ("c",)


class TestAnArgvBehindWrappers:
    def test_names_the_builds_own_words(self) -> None:
        segment = classify_argv(["env", "A=1", "timeout", "60", "make", "a b"], CWD, Policy())
        assert segment.argv == ("make", "a b")
        assert segment.text == "make 'a b'"
        assert "env A=1 timeout 60 make 'a b'"[segment.start : segment.end] == segment.text

    def test_obeys_a_switch_that_env_sets(self) -> None:
        assert classify_argv(["env", "RCH_BYPASS=1", "make"], CWD, Policy()).reason == "bypass"

    @pytest.mark.parametrize("argv", [[], [""], ["\0"], ["make", "\0"], ["cargo", "\ud800"], ["env"], ["timeout", "5"]])
    def test_never_raises(self, argv: list[str]) -> None:
        classify_argv(argv, CWD, Policy())


class TestOutputsOutside:
    @pytest.mark.parametrize(
        ("line", "cwd", "stays"),
        [
            ("gcc -o /tmp/t t.c", "/home/me/app", True),
            ("gcc -o /home/me/app/build/t t.c", "/home/me/app/src", False),
            ("gcc -o ../build/t t.c", "/home/me/app/src", False),
            ("gcc -o ../../../../t t.c", "/home/me/app/src", True),
            ("gcc -o /tmp/p/t t.c", "/tmp/p", False),
            ("gcc -o /tmp/t t.c", "/tmp/p", True),
            ("gcc -o /dev/null t.c", "/home/me/app", False),
            ("gcc -c -MF /tmp/x.d t.c", "/home/me/app", True),
            ("cargo build --target-dir /home/me/app/target", "/home/me/app", False),
            ("make -C ..", "/home/me/app/src", False),
        ],
    )
    def test_ic_07_an_output_that_cannot_return_keeps_the_command_here(self, line: str, cwd: str, stays: bool) -> None:
        assert (classify_argv(shlex.split(line), cwd, Policy()).reason == "output-outside-roots") is stays


def test_ic_06_judging_an_argv_loads_no_grammar_and_nothing_foreign() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from rch.intercept import classify_argv\n"
        "from rch.intercept.decision import Policy\n"
        "assert classify_argv(['cargo', 'build'], '/x', Policy()).kind.name == 'cargo.build'\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'rch'}), 'socket' in new, 'subprocess' in new)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[] False False"
