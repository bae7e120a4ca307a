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


class TestACallerInASandbox:
    """Its environment may name any directory; nothing there is read or handed on, on that word alone."""

    LOCK = """\
[[package]]
name = "dep"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
"""

    @pytest.fixture
    def crate(self, repo):
        repo.write("Cargo.toml", '[package]\nname = "a"\nversion = "1.0.0"\n')
        repo.write("Cargo.lock", self.LOCK)
        repo.write("src/lib.rs", "")
        repo.commit()
        return repo

    def test_se_08_cannot_put_a_crate_of_its_own_into_the_cache_of_all(self, crate, build):
        crate.write("cargo/registry/cache/index/dep-1.0.0.crate", "evil")
        env = {"CARGO_HOME": f"{crate.path}/cargo"}
        assert build(CARGO, "cargo build", crate.path, env).cache_files
        assert build(CARGO, "cargo build", crate.path, env, confined=True).cache_files == ()

    def test_has_the_crates_of_the_users_own_cargo_home_sent(self, crate, build, home):
        path = home / ".cargo/registry/cache/index/dep-1.0.0.crate"
        path.parent.mkdir(parents=True)
        path.write_text("good")
        assert len(build(CARGO, "cargo build", crate.path, confined=True).cache_files) == 1

    @pytest.mark.parametrize("name", ["CARGO_HOME", "RUSTUP_HOME"])
    def test_se_08_cannot_have_another_directory_read_as_cargos(self, crate, build, tmp_path, name):
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret/config.toml").write_text('api_key = "x"\n')
        with pytest.raises(NotOffloadable) as caught:
            build(CARGO, "cargo build", crate.path, {name: str(tmp_path / "secret")}, confined=True)
        assert caught.value.code == "path-not-proved" and name in caught.value.message


class TestCargosConfigurationOfAProject:
    @pytest.fixture
    def crate(self, repo):
        repo.write("Cargo.toml", '[package]\nname = "a"\nversion = "1.0.0"\n')
        repo.write("src/lib.rs", "")
        return repo

    @pytest.mark.parametrize(
        "text",
        [
            '[registry]\nglobal-credential-providers = ["./evil"]\n',
            '[registries.theirs]\nindex = "sparse+http://127.0.0.1/"\ncredential-provider = ["./evil"]\n',
            '[credential-alias]\na = ["./evil"]\n',
            '[http]\nproxy = "http://127.0.0.1:1"\ncainfo = "evil.pem"\n',
        ],
    )
    def test_ex_10_does_not_decide_how_the_cache_of_all_is_filled(self, crate, build, text):
        crate.write(".cargo/config.toml", text)
        with pytest.raises(NotOffloadable) as caught:
            build(CARGO, "cargo build", crate.path)
        assert caught.value.code == "missing-input" and ".cargo/config.toml: " in caught.value.message

    def test_may_name_a_registry(self, crate, build):
        crate.write(".cargo/config.toml", '[registries.ours]\nindex = "sparse+https://crates.example.org/"\n')
        assert build(CARGO, "cargo build", crate.path).fetch

    def test_se_08_has_no_file_sent_that_lies_elsewhere(self, crate, build, home):
        (home / "app").mkdir()
        (home / "app/config.toml").write_text('api_key = "x"\n')
        crate.write(".cargo/config.toml", f'include = ["{home}/app/config.toml"]\n')
        with pytest.raises(NotOffloadable) as caught:
            build(CARGO, "cargo build", crate.path)
        assert caught.value.code == "missing-input" and "app/config.toml" in caught.value.message
        (crate.path / ".cargo/config.toml").unlink()
        with pytest.raises(NotOffloadable):
            build(CARGO, f"cargo build --config {home}/app/config.toml", crate.path)


class TestAFileOutsideTheRoots:
    def test_se_08_is_not_another_one_by_a_link(self, tree, build, home):
        secret = home / ".ssh/id_ed25519"
        secret.parent.mkdir()
        secret.write_text("a key of the user\n")
        tree.write("sub/.rch/config.toml", "")
        tree.write("sub/Cargo.toml", '[package]\nname = "a"\nversion = "1.0.0"\n')
        tree.write("sub/src/lib.rs", "")
        tree.write("sub/rust-toolchain.toml", '[toolchain]\nchannel = "stable"\n')
        (tree.path / "rust-toolchain").symlink_to(secret)
        with pytest.raises(NotOffloadable) as caught:
            build(CARGO, "cargo build", tree.path / "sub")
        assert caught.value.code == "missing-input" and "rust-toolchain" in caught.value.message

    def test_may_be_a_link_to_one_of_the_same_name(self, tree, build, home):
        kept = home / "dotfiles/config.toml"
        kept.parent.mkdir()
        kept.write_text("[net]\nretry = 3\n")
        (home / ".cargo").mkdir()
        (home / ".cargo/config.toml").symlink_to(kept)
        tree.write("Cargo.toml", '[package]\nname = "a"\nversion = "1.0.0"\n')
        tree.write("src/lib.rs", "")
        project = build(CARGO, "cargo build", tree.path)
        assert [file.content for file in project.extra_files] == [kept.read_bytes()]
