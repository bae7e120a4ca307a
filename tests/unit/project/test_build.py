"""One command, all of it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from rch.errors import NotOffloadable
from rch.paths import AbsPath
from rch.project import ProjectSettings, build_project, discover_roots
from rch.schedule.reasons import REASONS
from rch.toolchains import KINDS

MAKE = dataclasses.replace(KINDS["make"], tools=())
CARGO = dataclasses.replace(KINDS["cargo.build"], tools=())
REAL_HOME = os.path.expanduser("~root") if os.geteuid() == 0 else os.path.expanduser("~")


@pytest.fixture
def build(home, state):
    def run(kind, argv, cwd, env=None, settings=None, **more):
        full = {"HOME": str(home), "PATH": "/usr/bin:/bin", **(env or {})}
        return build_project(
            argv.split(),
            kind,
            AbsPath(str(cwd)),
            full,
            settings or ProjectSettings(),
            AbsPath(str(state)),
            "client",
            0,
            **more,
        )

    return run


def sent(project, number=0):
    entries = project.manifests[project.roots[number].key].entries
    return {p for p, e in entries.items() if e.type != "d" and not p.startswith(".git/")}


class TestAProject:
    def test_holds_roots_manifests_environment_and_registry_files(self, repo, build):
        repo.write("ws/Cargo.toml", '[workspace]\nmembers = ["app"]\n')
        repo.write(
            "ws/app/Cargo.toml",
            '[package]\nname = "app"\nversion = "0.1.0"\n[dependencies]\next = {path = "../../ext"}\n',
        )
        repo.write("ws/app/src/main.rs")
        repo.write("ext/Cargo.toml", '[package]\nname = "ext"\nversion = "0.1.0"\n')
        repo.write("ext/src/lib.rs")
        repo.commit()
        project = build(CARGO, "cargo build", repo.path / "ws/app", {"RUSTFLAGS": "-g", "GITHUB_TOKEN": "x"})
        assert [os.path.basename(root.path) for root in project.roots] == ["ws", "ext"]
        assert (project.name, project.cwd) == ("ws", str(repo.path / "ws/app"))
        assert project.id == project.roots[0].key
        assert sent(project) == {"Cargo.toml", "app/Cargo.toml", "app/src/main.rs"}
        assert sent(project, 1) == {"Cargo.toml", "src/lib.rs"}
        assert project.env["RUSTFLAGS"] == "-g" and "GITHUB_TOKEN" not in project.env
        assert project.env["PWD"] == project.cwd
        assert ".git/HEAD" in project.manifests[project.roots[0].key].sources
        assert len(project.digest) == 64

    def test_takes_ignored_lock_files_and_configuration_of_cargo_along(self, repo, build):
        repo.write(".gitignore", "Cargo.lock\n.cargo/\n*.local\n")
        repo.write("Cargo.toml", '[package]\nname = "app"\nversion = "0.1.0"\n')
        repo.write("src/lib.rs")
        repo.commit()
        repo.write("Cargo.lock", "version = 4\n")
        repo.write(".cargo/config.toml", "[build]\n")
        repo.write(".cargo/other.local")
        project = build(CARGO, "cargo build", repo.path)
        assert sent(project) == {".gitignore", "Cargo.toml", "src/lib.rs", "Cargo.lock", ".cargo/config.toml"}

    def test_takes_a_generated_crate_along_that_git_ignores_and_not_its_neighbours(self, repo, build):
        repo.write(".gitignore", "/gen/\n")
        repo.write(
            "Cargo.toml", '[package]\nname = "app"\nversion = "0.1.0"\n[dependencies]\nx = {path = "gen/deep/x"}\n'
        )
        repo.write("src/lib.rs")
        repo.commit()
        repo.write("gen/deep/x/Cargo.toml", '[package]\nname = "x"\nversion = "0.1.0"\n')
        repo.write("gen/deep/x/src/lib.rs")
        repo.write("gen/deep/x/target/junk")
        repo.write("gen/deep/y/private")
        repo.write("gen/junk")
        assert sent(build(CARGO, "cargo build", repo.path)) == {
            ".gitignore", "Cargo.toml", "src/lib.rs", "gen/deep/x/Cargo.toml", "gen/deep/x/src/lib.rs",
        }  # fmt: skip

    def test_settings_name_it_and_steer_what_travels(self, repo, build):
        repo.write("Makefile")
        repo.write("a.dat")
        settings = ProjectSettings(
            id="shop", name="Shop", git="none", exclude_extra=("*.dat",), execution_env={"X": "1"}
        )
        project = build(MAKE, "make", repo.path, settings=settings)
        assert (project.id, project.name, project.env["X"]) == ("shop", "Shop", "1")
        assert set(project.manifests[project.roots[0].key].entries) == {"Makefile"}

    def test_has_the_same_digest_after_a_touch_and_another_after_an_edit(self, repo, build):
        repo.write("Makefile", "a:\n")
        repo.commit()
        first = build(MAKE, "make", repo.path).digest
        os.utime(repo.path / "Makefile")
        assert build(MAKE, "make", repo.path).digest == first
        repo.write("Makefile", "b:\n")
        assert build(MAKE, "make", repo.path).digest != first

    def test_roots_are_never_more_than_what_discovery_said_before(self, repo, build, home, state, new_tree, tmp_path):
        """Callers prove the roots of discovery; a link that appears in between must not widen them."""
        repo.write("Makefile")
        other = new_tree(tmp_path / "other")
        other.write("x")
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        args = (["make"], MAKE, AbsPath(str(repo.path)), env, ProjectSettings())
        before = discover_roots(*args, state_dir=AbsPath(str(state)), client_id="client", uid=0)
        os.symlink(other.path, repo.path / "new")
        with pytest.raises(NotOffloadable) as caught:
            build(MAKE, "make", repo.path)
        assert caught.value.code == "path-not-proved" and str(repo.path / "new") in caught.value.message
        after = discover_roots(*args, state_dir=AbsPath(str(state)), client_id="client", uid=0)
        assert (len(before.roots), len(after.roots)) == (1, 2)
        project = build(MAKE, "make", repo.path)
        assert [root.key for root in project.roots] == [root.key for root in after.roots]

    def test_what_workers_returned_earlier_is_asked_for_per_root(self, repo, build):
        repo.write("Cargo.toml", '[package]\nname = "app"\nversion = "0.1.0"\n')
        repo.write("src/lib.rs")
        repo.write(".gitignore", "*.snap\n")
        repo.write("a.snap")
        project = build(CARGO, "cargo build", repo.path, also=lambda root: ["a.snap"] if root.real == repo.real else [])
        assert "a.snap" in sent(project)

    def test_leaves_no_trace_in_the_project(self, repo, build):
        repo.write("Cargo.toml", '[package]\nname = "app"\nversion = "0.1.0"\n[dependencies]\nitoa = "1"\n')
        repo.write("src/lib.rs")
        repo.commit()
        repo.write("src/lib.rs", "changed")

        def everything():
            return {
                str(p): (os.lstat(p).st_mtime_ns, os.lstat(p).st_ino, p.read_bytes() if p.is_file() else b"")
                for p in sorted(Path(repo.path).rglob("*"))
            }

        before = everything()
        build(CARGO, "cargo build", repo.path)
        assert everything() == before

    @pytest.mark.skipif(
        not os.path.exists(f"{REAL_HOME}/.rustup/settings.toml"), reason="needs rustup: CI and dev machines"
    )
    def test_knows_its_toolchain_and_carries_the_settings_of_rustup(self, tree, build):
        tree.write("Cargo.toml", '[package]\nname = "app"\nversion = "0.1.0"\n')
        tree.write("src/lib.rs")
        env = {"PATH": f"{REAL_HOME}/.cargo/bin:/usr/bin:/bin", "RUSTUP_HOME": f"{REAL_HOME}/.rustup"}
        project = build(KINDS["cargo.build"], "cargo +nightly build", tree.path, env)
        assert "nightly" in project.tools[0].identity
        assert f"{REAL_HOME}/.rustup/settings.toml" in [f.path for f in project.extra_files]


class TestReasonCodes:
    def test_ux_01_every_code_raised_by_the_project_side_is_in_the_closed_list(self):
        import re

        import rch.project

        folder = Path(rch.project.__file__).parent
        codes = {c for p in folder.glob("*.py") for c in re.findall(r'code="([a-z-]+)"', p.read_text())}
        assert codes and codes <= set(REASONS)
