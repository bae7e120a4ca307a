"""Toolchain identities, compared with rustup's own choice, and never started from where a caller may write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from rch.errors import NotOffloadable
from rch.project import identify_tools
from rch.project import programs as programs_module
from rch.worker.identity import c_identity

REAL_HOME = os.path.expanduser("~root") if os.geteuid() == 0 else os.path.expanduser("~")
RUSTUP = Path(REAL_HOME) / ".rustup"
CARGO_BIN = Path(REAL_HOME) / ".cargo/bin"
needs_rustup = pytest.mark.skipif(
    not (RUSTUP / "settings.toml").exists(), reason="needs rustup with two toolchains: CI and dev machines"
)


def real_env(**more: str) -> dict[str, str]:
    return {"PATH": f"{CARGO_BIN}:/usr/bin:/bin", "HOME": REAL_HOME, "RUSTUP_AUTO_INSTALL": "0", **more}


def rustc_says(cwd: Path, env: dict[str, str], *words: str) -> str:
    return subprocess.run(
        [str(CARGO_BIN / "rustc"), *words, "-vV"], cwd=cwd, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@needs_rustup
class TestRust:
    LAYOUTS: ClassVar = {
        "file in a parent": ({"rust-toolchain": "nightly\n"}, {}, ""),
        "toml": ({"rust-toolchain.toml": '[toolchain]\nchannel = "nightly"\n'}, {}, ""),
        "toml in the old name": ({"rust-toolchain": '[toolchain]\nchannel = "nightly"\n'}, {}, ""),
        "plus": ({"rust-toolchain": "stable\n"}, {}, "nightly"),
        "variable": ({"rust-toolchain": "stable\n"}, {"RUSTUP_TOOLCHAIN": "nightly"}, ""),
        "default": ({}, {}, ""),
        "nearest": ({"rust-toolchain": "stable\n", "a/rust-toolchain": "nightly\n"}, {}, ""),
        "full name": ({"rust-toolchain": "nightly-x86_64-unknown-linux-gnu\n"}, {}, ""),
        "both files": (
            {"rust-toolchain": "nightly\n", "rust-toolchain.toml": '[toolchain]\nchannel = "stable"\n'},
            {},
            "",
        ),
    }

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_te_01_is_resolved_as_rustup_does(self, tree, layout):
        files, more, toolchain = self.LAYOUTS[layout]
        for name, content in files.items():
            tree.write(name, content)
        cwd = tree.path / "a/b"
        cwd.mkdir(parents=True)
        env = real_env(**more)
        (found,) = identify_tools(("rust",), str(cwd), env, toolchain=toolchain)
        assert found.identity == rustc_says(cwd, env, *([f"+{toolchain}"] if toolchain else []))
        assert found.shown.startswith("rustc ")
        assert str(CARGO_BIN) in found.binds and str(RUSTUP / "settings.toml") in found.binds

    def test_te_01_an_override_of_a_directory_wins_over_its_file(self, tree, tmp_path, monkeypatch):
        monkeypatch.setattr(programs_module, "_TEMPORARY", ())  # where this test has to put its rustup
        home = tmp_path / "rustup"
        home.mkdir()
        (home / "toolchains").symlink_to(RUSTUP / "toolchains")
        cwd = tree.path / "a"
        cwd.mkdir()
        tree.write("rust-toolchain", "stable\n")
        host = "x86_64-unknown-linux-gnu"
        (home / "settings.toml").write_text(
            f'version = "12"\ndefault_toolchain = "stable-{host}"\n[overrides]\n"{tree.real}" = "nightly-{host}"\n'
        )
        env = real_env(RUSTUP_HOME=str(home))
        (found,) = identify_tools(("rust",), str(cwd), env)
        assert found.identity == rustc_says(cwd, env)
        assert "nightly" in found.identity

    def test_a_warm_call_starts_no_process(self, tree, monkeypatch):
        identify_tools(("rust",), str(tree.path), real_env())
        monkeypatch.setattr(programs_module.subprocess, "run", lambda *a, **k: pytest.fail("started a process"))
        identify_tools(("rust",), str(tree.path), real_env())

    @pytest.mark.parametrize("channel", ['path = "tc"', 'channel = "/somewhere/tc"', 'channel = "1.2.3"'])
    def test_se_08_a_toolchain_that_the_repository_brings_is_never_started(self, tree, channel, tmp_path):
        trap = tree.write("tc/bin/rustc", f"#!/bin/sh\ntouch {tmp_path}/sprung\necho rustc\n")
        trap.chmod(0o755)
        tree.write("rust-toolchain.toml", f"[toolchain]\n{channel}\n")
        with pytest.raises(NotOffloadable) as caught:
            identify_tools(("rust",), str(tree.path), real_env())
        assert caught.value.code == "toolchain-mismatch"
        assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(shutil.which("gcc", path="/usr/bin") is None, reason="needs gcc: CI and dev machines")
class TestC:
    def test_te_05_is_what_the_worker_says_about_the_same_compilers_and_is_asked_once(self, tree, monkeypatch):
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tree.path)}
        (found,) = identify_tools(("c",), str(tree.path), env)
        assert found.identity == c_identity("/usr/bin:/bin")["identity"]
        assert "gcc" in found.identity and "packages: " in found.identity
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
        assert identify_tools(("c",), str(tree.path), env) == (found,)

    def test_se_08_a_compiler_that_the_caller_may_write_is_never_started(self, tree, tmp_path):
        trap = tree.write("bin/gcc", f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
        trap.chmod(0o755)
        env = {"PATH": f"{tree.path}/bin:/usr/bin:/bin", "HOME": str(tree.path)}
        with pytest.raises(NotOffloadable) as caught:
            identify_tools(("c",), str(tree.path), env, writable=[str(tree.real)])
        assert caught.value.code == "toolchain-mismatch"
        assert not (tmp_path / "sprung").exists()


class TestPrograms:
    @pytest.mark.parametrize(("tool", "program"), [("rust", "rustc"), ("go", "go"), ("node", "node")])
    def test_se_08_from_a_place_the_caller_may_write_are_never_started(self, tree, tmp_path, tool, program):
        trap = tree.write(f"bin/{program}", f"#!/bin/sh\ntouch {tmp_path}/sprung\necho {program}\n")
        trap.chmod(0o755)
        env = {"PATH": f"{tree.path}/bin:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
        with pytest.raises(NotOffloadable) as caught:
            identify_tools((tool,), str(tree.path), env, writable=[str(tree.real)])
        assert caught.value.code == "toolchain-mismatch" and f"bin/{program}" in caught.value.message
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("tool", ["rust", "go", "node"])
    def test_that_are_not_here_are_named(self, tree, tool):
        with pytest.raises(NotOffloadable) as caught:
            identify_tools((tool,), str(tree.path), {"PATH": "/nowhere", "HOME": "/nowhere"})
        assert caught.value.code == "capability-missing"

    def test_te_02_a_kind_without_tools_asks_nobody(self, tree):
        assert identify_tools((), str(tree.path), {"PATH": "/nowhere"}) == ()


class TestACallerInASandbox:
    """It may write more than rchd can know: a cache, a further directory that its sandbox was given."""

    @pytest.fixture(autouse=True)
    def home_is_none_of_those_for_everybody(self, monkeypatch):
        monkeypatch.setattr(programs_module, "_TEMPORARY", ())

    def identify(self, tool, env, tree, **more):
        return identify_tools((tool,), str(tree.path), env, writable=[str(tree.real)], confined=True, **more)

    @pytest.mark.parametrize(("tool", "program"), [("rust", "rustc"), ("go", "go"), ("node", "node"), ("c", "gcc")])
    def test_se_08_has_no_program_started_that_its_path_alone_names(self, tree, home, tmp_path, tool, program):
        trap = home / ".cache/tools" / program
        trap.parent.mkdir(parents=True)
        trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\necho {program}\n")
        trap.chmod(0o755)
        env = {"PATH": f"{trap.parent}:/usr/bin:/bin", "HOME": str(home)}
        with pytest.raises(NotOffloadable) as caught:
            self.identify(tool, env, tree)
        assert caught.value.code == "toolchain-mismatch" and str(trap) in caught.value.message
        assert not (tmp_path / "sprung").exists()

    def test_se_08_has_no_toolchain_started_from_a_rustup_home_of_its_own(self, tree, home, tmp_path):
        compiler = home / "mine/toolchains/x/bin/rustc"
        compiler.parent.mkdir(parents=True)
        compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\necho rustc\n")
        compiler.chmod(0o755)
        (home / "mine/settings.toml").write_text('default_toolchain = "x"\n')
        proxy = home / "bin/rustc"
        proxy.parent.mkdir()
        proxy.write_text("#!/bin/sh\n")
        proxy.chmod(0o755)
        os.link(proxy, home / "bin/rustup")
        env = {"PATH": str(proxy.parent), "HOME": str(home), "RUSTUP_HOME": str(home / "mine")}
        with pytest.raises(NotOffloadable) as caught:
            self.identify("rust", env, tree)
        assert caught.value.code == "toolchain-mismatch"
        assert not (tmp_path / "sprung").exists()

    def test_is_told_of_what_is_on_the_path_of_rchd_itself(self, tree, home, monkeypatch):
        go = home / "sdk/go/bin/go"
        go.parent.mkdir(parents=True)
        go.write_text("#!/bin/sh\necho go version go1.24.1 linux/amd64\n")
        go.chmod(0o755)
        monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
        (found,) = self.identify("go", {"PATH": str(go.parent), "HOME": str(home)}, tree)
        assert found.shown == "go version go1.24.1 linux/amd64"
