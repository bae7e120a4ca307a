"""What of CARGO_HOME goes along, and the fetch step."""

from __future__ import annotations

from pathlib import Path

import pytest

from rch.paths import AbsPath
from rch.project import cargo_cache_files, fetch_step
from rch.project.registry import index_path

LOCK = """version = 4

[[package]]
name = "app"
version = "0.1.0"

[[package]]
name = "itoa"
version = "1.0.11"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "x"

[[package]]
name = "absent"
version = "2.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "tool"
version = "0.3.0"
source = "git+https://example.org/team/Tool.git?branch=main#0123456789abcdef"

[[package]]
name = "../../../etc/passwd"
version = "1"
source = "registry+https://github.com/rust-lang/crates.io-index"
"""


@pytest.fixture
def cargo_home(tmp_path: Path) -> Path:
    home = tmp_path / "cargo"
    for name in (
        "registry/cache/index.crates.io-1/itoa-1.0.11.crate",
        "registry/cache/index.crates.io-1/itoa-1.0.10.crate",
        "registry/index/index.crates.io-1/.cache/it/oa/itoa",
        "registry/index/index.crates.io-1/.cache/se/rd/serde",
        "registry/index/index.crates.io-1/config.json",
        "registry/src/index.crates.io-1/itoa-1.0.11/src/lib.rs",
        "git/db/tool-00ff/HEAD",
        "git/db/tool-00ff/objects/pack/p.pack",
        "git/db/tool-00ff/hooks/post-update",
        "git/db/other-00ff/HEAD",
        "git/checkouts/tool-00ff/0123456/src/lib.rs",
        "credentials.toml",
        "config.toml",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    return home


class TestCacheFiles:
    def test_te_04_are_what_the_lock_needs_and_this_machine_has(self, tree, cargo_home):
        tree.write("Cargo.lock", LOCK)
        assert cargo_cache_files(tree.root(), {"CARGO_HOME": str(cargo_home)}) == (
            "git/db/tool-00ff/HEAD",
            "git/db/tool-00ff/objects/pack/p.pack",
            "registry/cache/index.crates.io-1/itoa-1.0.11.crate",
            "registry/index/index.crates.io-1/.cache/it/oa/itoa",
            "registry/index/index.crates.io-1/config.json",
        )

    def test_are_none_without_a_lock_or_without_a_cargo_home(self, tree, cargo_home, tmp_path):
        assert cargo_cache_files(tree.root(), {"CARGO_HOME": str(cargo_home)}) == ()
        tree.write("Cargo.lock", LOCK)
        assert cargo_cache_files(tree.root(), {"CARGO_HOME": str(tmp_path / "nothing")}) == ()
        tree.write("Cargo.lock", "[[package")
        assert cargo_cache_files(tree.root(), {"CARGO_HOME": str(cargo_home)}) == ()

    @pytest.mark.parametrize(
        ("name", "path"), [("a", "1/a"), ("ab", "2/ab"), ("abc", "3/a/abc"), ("Serde", "se/rd/serde")]
    )
    def test_index_entries_lie_where_cargo_keeps_them(self, name, path):
        assert index_path(name) == path


class TestTheFetchStep:
    @pytest.mark.parametrize(
        ("argv", "expected"),
        [
            ("cargo build --release", "cargo fetch --quiet"),
            ("cargo +nightly test --locked -- --offline", "cargo +nightly fetch --quiet --locked"),
            ("cargo build --offline", "cargo fetch --quiet --offline"),
            ("cargo build --manifest-path x/Cargo.toml", "cargo fetch --quiet --manifest-path x/Cargo.toml"),
            ("cargo build --config=net.retry=1 -Z unstable", "cargo fetch --quiet --config=net.retry=1 -Z unstable"),
            ("/opt/cargo check -p app", "/opt/cargo fetch --quiet"),
        ],
    )
    def test_carries_what_changes_the_resolution(self, tree, argv, expected):
        lock = tree.write("Cargo.lock", LOCK)
        (step,) = fetch_step(argv.split(), str(lock))
        assert " ".join(step[:-6]) == expected

    def test_ex_10_names_the_compiler_itself(self, tree):
        lock = tree.write("Cargo.lock", LOCK)
        (step,) = fetch_step(["cargo", "build", "--config", 'build.rustc="./evil"'], str(lock))
        assert list(step[-6:]) == [
            *("--config", 'build.rustc="rustc"', "--config", 'build.rustc-wrapper=""'),
            *("--config", 'build.rustc-workspace-wrapper=""'),
        ]

    def test_is_left_out_where_nothing_comes_from_elsewhere(self, tree):
        lock = tree.write("Cargo.lock", 'version = 4\n[[package]]\nname = "app"\nversion = "0.1.0"\n')
        assert fetch_step(["cargo", "build"], AbsPath(str(lock))) == ()

    def test_is_there_without_a_lock(self, tree):
        assert len(fetch_step(["cargo", "build"], str(tree.path / "Cargo.lock"))) == 1
