"""Preflight: what is likely to fail runs here; what is not certain goes on."""

from __future__ import annotations

import os.path
import shlex

import pytest

from rch.schedule.reasons import REASONS
from rch.toolchains import kind_named, preflight
from rch.toolchains.preflight import Preflight, check

ROOT = "/p"
FILES = {
    "/p/Cargo.toml": b'[package]\nname = "root"\n[workspace]\nmembers = ["crates/*", "tools/x"]\n',
    "/p/src/main.rs": b"",
    "/p/src/bin/extra.rs": b"",
    "/p/examples/demo.rs": b"",
    "/p/tests/e2e/main.rs": b"",
    "/p/Cargo.lock": b'[[package]]\nname = "serde"\n',
    "/p/crates/core/Cargo.toml": b'[package]\nname = "core-lib"\n[[bin]]\nname = "tool"\npath = "x.rs"\n',
    "/p/tools/x/Cargo.toml": b'[package]\nname = "x"\n',
    "/bad/Cargo.toml": b"[package\n",
    "/empty/Cargo.toml": b"[dependencies]\n",
    "/noname/Cargo.toml": b"[package]\nversion = '1'\n",
    "/odd/Cargo.toml": b"package = 3\n",
    "/c/main.c": b"",
}


def _read(path: str) -> bytes | None:
    return FILES.get(path)


def _names(path: str) -> list[str] | None:
    inside = {file[len(path) + 1 :].split("/")[0] for file in FILES if file.startswith(path + "/")}
    return sorted(inside) or None


def _check(line: str, kind: str = "cargo.build", cwd: str = ROOT) -> Preflight:
    return check(shlex.split(line), kind_named(kind), cwd, _read, _names)


@pytest.mark.parametrize(
    "line",
    [
        "cargo build",
        "cargo build -p core-lib",
        "cargo build -p core-lib --bin tool",
        "cargo build --bin root",
        "cargo build --bin extra",
        "cargo build --example demo",
        "cargo test --test e2e",
        "cargo build -p serde",
        "cargo build --workspace --bin tool",
        "cargo build --manifest-path crates/core/Cargo.toml --bin tool",
    ],
)
def test_b_09_a_command_that_names_what_exists_is_ready(line: str) -> None:
    assert _check(line).answer == preflight.READY
    assert _check(line).reason == ""


@pytest.mark.parametrize(
    ("line", "cwd", "problem"),
    [
        ("cargo build", "/bad", "invalid-manifest"),
        ("cargo build", "/empty", "invalid-manifest"),
        ("cargo build", "/noname", "invalid-manifest"),
        ("cargo build", "/nowhere/at/all", "invalid-manifest"),
        ("cargo build --manifest-path gone/Cargo.toml", ROOT, "invalid-manifest"),
        ("cargo build -p absent", ROOT, "missing-dependency"),
        ("cargo build --bin absent", ROOT, "invalid-target"),
        ("cargo build --bin tool", ROOT, "invalid-target"),
        ("cargo run --example absent", ROOT, "invalid-target"),
        ("cargo test --test absent", ROOT, "invalid-target"),
        ("cargo bench --bench absent", ROOT, "invalid-target"),
    ],
)
def test_b_09_a_command_that_names_what_is_missing_stays_here(line: str, cwd: str, problem: str) -> None:
    found = _check(line, cwd=cwd)
    assert (found.answer, found.problem) == (preflight.LIKELY_TO_FAIL, problem)
    assert found.details
    assert found.suggestion
    assert found.reason in REASONS


@pytest.mark.parametrize(
    ("line", "cwd"),
    [
        ("cargo build -p 'glob*'", ROOT),
        ("cargo build -p https://x/y#z", ROOT),
        ("cargo -C sub build", ROOT),
        ("cargo build", "/odd"),
        ("cargo unheard", ROOT),
    ],
)
def test_b_09_a_doubt_is_unknown_and_goes_on(line: str, cwd: str) -> None:
    assert _check(line, cwd=cwd).answer == preflight.UNKNOWN_ANSWER


def test_b_09_an_unreadable_file_is_a_doubt() -> None:
    def fails(path: str) -> bytes | None:
        raise PermissionError(path)

    assert check(["cargo", "build"], kind_named("cargo.build"), ROOT, fails, _names).answer == preflight.UNKNOWN_ANSWER


def test_b_09_a_missing_source_stays_here() -> None:
    assert _check("gcc -c main.c", "cc.compile", "/c").answer == preflight.READY
    assert _check("gcc -c absent.c", "cc.compile", "/c").reason == "preflight-missing-file"
    assert _check("rustc absent.rs", "rustc", "/c").reason == "preflight-missing-file"
    assert _check("gcc -c '*.c'", "cc.compile", "/c").answer == preflight.UNKNOWN_ANSWER
    assert _check("make", "make", "/c").answer == preflight.UNKNOWN_ANSWER


def test_a_members_own_directory_finds_its_workspace() -> None:
    assert _check("cargo build -p x", cwd=os.path.join(ROOT, "crates/core")).answer == preflight.READY


class TestAPackageThatNobodyKnows:
    def test_b_09_is_missing_where_nothing_is_depended_upon_even_without_a_lock_file(self):
        files = {"/p/Cargo.toml": b'[package]\nname = "x"\n'}
        found = check(("cargo", "build", "-p", "y"), kind_named("cargo.build"), "/p", files.get, lambda _: [])
        assert found.reason == "preflight-missing-dependency"

    def test_b_09_may_be_a_dependency_of_one(self):
        files = {"/p/Cargo.toml": b'[package]\nname = "x"\n[dependencies]\nz = "1"\n'}
        found = check(("cargo", "build", "-p", "y"), kind_named("cargo.build"), "/p", files.get, lambda _: [])
        assert found.reason == ""
