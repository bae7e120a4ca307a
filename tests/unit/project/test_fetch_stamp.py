"""The stamp of a fetch step changes with everything that decides what the step brings, and with nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rch.paths import AbsPath, Argv, RelPath
from rch.project.model import ExtraFile, Manifest, Root, Tool, ToolIdentity
from rch.project.registry import fetch_stamp
from rch.worker.protocol import Entry

ROOT = Root(AbsPath("/w"), AbsPath("/w"), "0" * 32)
FILES = {
    "Cargo.toml": "1",
    "Cargo.lock": "2",
    "crates/a/Cargo.toml": "3",
    "src/main.rs": "4",
    ".cargo/config.toml": "5",
}
RUST = ToolIdentity(Tool.RUST, "rustc 1.63", "rustc 1.63")


def stamp(files=FILES, argv=("cargo", "fetch"), tools=(RUST,), extra=(), env=None, lock="/w/Cargo.lock"):
    entries = {p: Entry(RelPath(p), "f", 0o644, 1, 1, content) for p, content in files.items()}
    manifest = Manifest(entries=entries, digest="", taken_ns=0)
    return fetch_stamp([Argv(*argv)], lock, [ROOT], {ROOT.key: manifest}, tools, extra, env or {})


class TestFetchStamp:
    @pytest.mark.parametrize("path", ["Cargo.toml", "Cargo.lock", "crates/a/Cargo.toml", ".cargo/config.toml"])
    def test_follows_manifests_locks_and_configuration(self, path):
        assert stamp({**FILES, path: "other"}) != stamp()
        assert stamp({**FILES, f"crates/b/{path}": "new"}) != stamp()

    def test_does_not_follow_sources_or_times(self):
        assert stamp({**FILES, "src/main.rs": "edited", "src/new.rs": "6"}) == stamp()

    def test_follows_the_command_the_toolchain_and_cargos_environment(self):
        assert stamp(argv=("cargo", "fetch", "--offline")) != stamp()
        assert stamp(tools=(replace(RUST, identity="rustc 1.64"),)) != stamp()
        assert stamp(env={"CARGO_NET_OFFLINE": "true"}) != stamp()
        assert stamp(env={"EDITOR": "vi"}) == stamp()

    def test_follows_configuration_outside_the_roots(self):
        config = ExtraFile(AbsPath("/home/u/.cargo/config.toml"), b"[source.x]", 0o644)
        assert stamp(extra=(config,)) != stamp()
        assert stamp(extra=(replace(config, content=b"[source.y]"),)) != stamp(extra=(config,))

    def test_is_empty_when_the_lock_file_is_not_sent(self):
        assert stamp({path: content for path, content in FILES.items() if path != "Cargo.lock"}) == ""
        assert stamp(lock="/elsewhere/Cargo.lock") == ""
