"""From argv and cwd to the directories a job has to see."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rch.errors import NotOffloadable
from rch.paths import AbsPath
from rch.project import ProjectSettings, discover_roots, root_key
from rch.project.cargo import cargo_layout
from rch.toolchains import KINDS

REAL_HOME = os.path.expanduser("~root") if os.geteuid() == 0 else os.path.expanduser("~")
CRATE = '[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n'


def crate(tree, directory: str, more: str = "", name: str = "") -> Path:
    tree.write(f"{directory}/src/lib.rs", "")
    return tree.write(f"{directory}/Cargo.toml", CRATE.format(name=name or directory.rpartition("/")[2]) + more)


@pytest.fixture
def discover(home, state):
    def run(kind, argv, cwd, env=None, settings=None, **more):
        full = {"HOME": str(home), "PATH": os.environ["PATH"], **(env or {})}
        words = argv.split() if isinstance(argv, str) else argv
        return discover_roots(
            words,
            KINDS[kind],
            AbsPath(str(cwd)),
            full,
            settings or ProjectSettings(),
            state_dir=AbsPath(str(state)),
            **more,
        )

    return run


def paths(found) -> list[str]:
    return [root.path for root in found.roots]


def refusal(call, *args, **more) -> NotOffloadable:
    with pytest.raises(NotOffloadable) as caught:
        call(*args, **more)
    return caught.value


class TestTheRoot:
    def test_sp_07_is_the_same_from_every_directory_of_the_project(self, repo, discover):
        repo.write("Makefile")
        repo.write("src/deep/a.c")
        repo.write("build/x")
        found = [discover("make", "make", repo.path / d) for d in (".", "src", "src/deep", "build")]
        assert {tuple(paths(f)) for f in found} == {(str(repo.path),)}
        assert len({f.roots[0].key for f in found}) == 1

    def test_a_4_is_the_directory_with_dot_rch_before_anything_else(self, repo, discover):
        repo.write("part/.rch/config.toml")
        repo.write("part/inner/Makefile")
        assert paths(discover("make", "make", repo.path / "part/inner")) == [str(repo.path / "part")]

    @pytest.mark.parametrize("marker", ["Makefile", "CMakeLists.txt", "meson.build", "go.mod", "build.ninja"])
    def test_is_the_topmost_build_file_of_an_unbroken_chain(self, tree, discover, marker):
        tree.write(f"a/{marker}")
        tree.write(f"a/b/{marker}")
        tree.write(f"a/b/c/{marker}")
        assert paths(discover("make", "make", tree.path / "a/b/c")) == [str(tree.path / "a")]

    def test_is_the_directory_itself_where_nothing_marks_one(self, tree, discover):
        tree.write("x.c")
        assert paths(discover("cc.compile", "cc -c x.c", tree.path)) == [str(tree.path)]

    @pytest.mark.parametrize("place", ["home", "/", "/tmp"])
    def test_is_never_a_home_or_a_shared_directory(self, discover, home, place):
        (home / "x.c").touch()
        subprocess.run(["git", "init", "-q", str(home)], check=True)
        (home / ".rch").mkdir()
        error = refusal(discover, "cc.compile", "cc -c x.c", home if place == "home" else place)
        assert error.code == "no-project"

    def test_is_not_a_home_that_is_a_repository(self, discover, home):
        subprocess.run(["git", "init", "-q", str(home)], check=True)
        (home / "proj").mkdir()
        (home / "proj/Makefile").touch()
        assert paths(discover("make", "make", home / "proj")) == [str(home / "proj")]

    def test_sp_09_key_depends_on_client_user_and_real_path(self):
        keys = {root_key(c, u, p) for c in "ab" for u in (1, 2) for p in ("/x/p", "/y/p")}
        assert len(keys) == 8 and all(len(k) == 32 for k in keys)
        assert root_key("a", 1, "/x") == root_key("a", 1, "/x")

    def test_of_a_submodule_is_the_submodule_and_of_a_worktree_the_worktree(self, repo, discover, new_tree, tmp_path):
        other = new_tree(tmp_path / "other")
        other.git("init", "-q")
        other.write("Makefile")
        other.commit()
        repo.git("submodule", "add", "-q", str(other.path), "sub")
        repo.commit()
        assert paths(discover("make", "make", repo.path / "sub")) == [str(repo.path / "sub")]
        repo.git("worktree", "add", "-q", str(tmp_path / "wt"))
        assert paths(discover("make", "make", tmp_path / "wt")) == [str(tmp_path / "wt")]


class TestPlacesThatCannotBeBound:
    @pytest.mark.parametrize(
        "place",
        ["/usr", "/usr/src", "/usr/local/src", "/etc", "/lib", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/dev"],
    )
    def test_pm_08_are_refused_before_anything_is_looked_at(self, discover, place, monkeypatch):
        monkeypatch.setattr("rch.project.roots._Search.run", lambda self: pytest.fail("looked"))
        error = refusal(discover, "make", "make", place)
        assert error.code == "path-not-bindable" and place in error.message

    def test_pm_08_a_link_into_one_is_refused_too(self, discover, tree):
        os.symlink("/usr/include", tree.path / "link")
        assert refusal(discover, "cc.compile", "cc -c x.c", tree.path / "link").code == "path-not-bindable"

    @pytest.mark.parametrize("name", ["plain", "with space", "é", "new\nline", "\udcff\udcfe", "lib", "usr", "etc"])
    def test_pm_08_every_other_name_goes_out(self, tree, discover, name):
        tree.write(f"{name}/Makefile")
        assert paths(discover("make", "make", tree.path / name)) == [str(tree.path / name)]


class TestDirectoriesInArgv:
    @pytest.mark.parametrize(
        ("kind", "argv"),
        [
            ("make", "make -C sub"),
            ("make", "make -Csub"),
            ("make", "make --directory=sub"),
            ("make", "make -C . -C sub"),
            ("ninja", "ninja -C sub"),
            ("cmake.build", "cmake --build sub -j2"),
            ("meson.compile", "meson compile -C sub"),
        ],
    )
    def test_move_the_work_and_the_root_with_it(self, tree, discover, kind, argv, new_tree, tmp_path):
        other = new_tree(tmp_path / "elsewhere")
        other.git("init", "-q")
        other.write("sub/Makefile")
        found = discover(kind, argv, other.path)
        assert paths(found) == [str(other.path)]
        far = argv.replace("sub", str(other.path / "sub"))
        tree.write("Makefile")
        assert paths(discover(kind, far, tree.path)) == [str(other.path), str(tree.path)]

    def test_cargo_goes_by_its_manifest(self, tree, discover, new_tree, tmp_path):
        crate(tree, "app")
        found = discover("cargo.build", "cargo build --manifest-path app/Cargo.toml", tree.path)
        assert paths(found) == [str(tree.path)] or paths(found) == [str(tree.path / "app"), str(tree.path)]
        home = Path(os.environ["HOME"])
        found = discover("cargo.build", f"cargo build --manifest-path {tree.path}/app/Cargo.toml", home)
        assert paths(found) == [str(tree.path / "app")]
        assert found.cwd == str(home)

    def test_a_cmake_build_directory_brings_its_source_directory(self, new_tree, tmp_path, discover):
        source, build = new_tree(tmp_path / "source"), new_tree(tmp_path / "out/build")
        source.write("CMakeLists.txt")
        build.write(
            "CMakeCache.txt", f"CMAKE_HOME_DIRECTORY:INTERNAL={source.path}\nx_SOURCE_DIR:STATIC={source.path}\n"
        )
        assert set(paths(discover("cmake.build", ["cmake", "--build", "."], build.path))) == {
            str(source.path),
            str(build.path),
        }
        assert set(paths(discover("ninja", "ninja", build.path))) == {str(source.path), str(build.path)}

    def test_a_makefile_brings_srcdir_and_what_it_includes(self, new_tree, tmp_path, discover):
        source, build = new_tree(tmp_path / "source"), new_tree(tmp_path / "out/build")
        source.write("rules.mk", "include more/x.mk\n")
        build.write("Makefile", "srcdir = ../../source\ninclude ../../source/rules.mk $(X)\n-include absent.mk\n")
        assert set(paths(discover("make", "make", build.path))) == {str(source.path), str(build.path)}

    def test_a_compiler_brings_its_include_directories_and_sources(self, new_tree, tmp_path, discover):
        work, other = new_tree(tmp_path / "work/a"), new_tree(tmp_path / "other/inc")
        work.write("x.c")
        other.write("x.h")
        argv = ["gcc", "-c", f"-I{other.path}", "-I", "/usr/include", "-I", "absent", "x.c", "-o", "x.o"]
        assert paths(discover("cc.compile", argv, work.path)) == [str(work.path), str(other.path)]

    def test_an_input_beside_everything_else_stays_here(self, tree, discover, home):
        (home / "x.h").touch()
        tree.write("x.c")
        error = refusal(discover, "cc.compile", ["gcc", "-include", str(home / "x.h"), "-c", "x.c"], tree.path)
        assert error.code == "missing-input" and str(home / "x.h") in error.message


class TestOutputs:
    @pytest.mark.parametrize(
        ("kind", "argv"),
        [
            ("cc.compile", "gcc x.c -o /tmp/t"),
            ("cc.compile", "gcc x.c -o/tmp/t"),
            ("cc.compile", "gcc -c x.c -MF /tmp/x.d -o x.o"),
            ("rustc", "rustc x.rs -o ../t"),
            ("rustc", "rustc x.rs --out-dir /tmp/out"),
            ("rustc", "rustc x.rs --emit=link=/tmp/x,dep-info=x.d"),
            ("make", "make O=/tmp/out"),
            ("make", "make DESTDIR=../../stage"),
            ("go.build", "go build -o /tmp/t"),
            ("cargo.build", "cargo build --target-dir /tmp/elsewhere"),
            ("cargo.build", "cargo build --artifact-dir=/tmp/elsewhere"),
        ],
    )
    def test_outside_the_roots_are_refused(self, tree, discover, kind, argv):
        for name in ("x.c", "x.rs", "Makefile", "go.mod", "src/lib.rs"):
            tree.write(name, "")
        tree.write("Cargo.toml", CRATE.format(name="a"))
        error = refusal(discover, kind, argv, tree.path)
        assert error.code == "output-outside-roots"

    @pytest.mark.parametrize(
        ("kind", "argv"),
        [
            ("cc.compile", "gcc x.c -o t"),
            ("cc.compile", "gcc -c x.c -o /dev/null"),
            ("rustc", "rustc x.rs --out-dir out"),
            ("make", "make CC=/usr/bin/gcc V=1"),
            ("cargo.build", "cargo build --target-dir out"),
        ],
    )
    def test_inside_them_are_fine(self, tree, discover, kind, argv):
        for name in ("x.c", "x.rs", "Makefile", "src/lib.rs"):
            tree.write(name, "")
        tree.write("Cargo.toml", CRATE.format(name="a"))
        assert paths(discover(kind, argv, tree.path)) == [str(tree.path)]


class TestLinks:
    def test_pm_02_a_root_reached_through_a_link_keeps_the_typed_path(self, repo, discover, tmp_path):
        repo.write("Makefile")
        repo.write("src/a.c")
        os.symlink(repo.path, tmp_path / "typed")
        found = discover("make", "make", tmp_path / "typed/src")
        root = found.roots[0]
        assert (root.path, root.real, root.aliases) == (str(tmp_path / "typed"), str(repo.path), (str(repo.path),))
        assert found.cwd == str(tmp_path / "typed/src")
        assert root.key == discover("make", "make", repo.path).roots[0].key

    def test_pm_02_a_link_into_the_middle_of_a_project_finds_the_project(self, repo, discover, tmp_path):
        repo.write("Makefile")
        repo.write("src/a.c")
        os.symlink(repo.path / "src", tmp_path / "typed")
        found = discover("make", "make -C ..", tmp_path / "typed")
        assert paths(found) == [str(repo.path)]
        assert found.cwd == str(repo.path / "src")

    def test_that_lead_out_of_the_tree_add_a_root(self, repo, discover, new_tree, tmp_path):
        other = new_tree(tmp_path / "other/data")
        third = new_tree(tmp_path / "third")
        other.write("x")
        third.write("y")
        os.symlink(third.path, other.path / "on")
        repo.write("Makefile")
        os.symlink(other.path, repo.path / "data")
        os.symlink("/usr/include", repo.path / "system")
        os.symlink("/nowhere/at/all", repo.path / "dangling")
        os.symlink("Makefile", repo.path / "inside")
        assert paths(discover("make", "make", repo.path)) == [str(repo.path), str(other.path), str(third.path)]
        (repo.path / "data").unlink()
        assert paths(discover("make", "make", repo.path)) == [str(repo.path)]

    def test_to_a_single_file_outside_stay_here_and_are_named(self, repo, discover, home):
        (home / "notes").touch()
        repo.write("Makefile")
        os.symlink(home / "notes", repo.path / "notes")
        error = refusal(discover, "make", "make", repo.path)
        assert error.code == "missing-input" and str(repo.path / "notes") in error.message

    def test_that_git_ignores_do_not_concern_cargo(self, repo, discover, home):
        (home / "notes").touch()
        repo.write("Cargo.toml", CRATE.format(name="a"))
        repo.write("src/lib.rs")
        repo.write(".gitignore", "notes\n")
        os.symlink(home / "notes", repo.path / "notes")
        assert paths(discover("cargo.build", "cargo build", repo.path)) == [str(repo.path)]


class TestCargo:
    def test_sp_05_a_workspace_of_25_members_is_one_root(self, tree, discover):
        members = [f"crates/m{n}" for n in range(25)]
        tree.write("Cargo.toml", '[workspace]\nresolver = "2"\nmembers = ["crates/*"]\n')
        for number, member in enumerate(members):
            crate(tree, member, f'[dependencies]\nm{number - 1} = {{ path = "../m{number - 1}" }}\n' if number else "")
        found = discover("cargo.build", "cargo build", tree.path / "crates/m7/src")
        assert paths(found) == [str(tree.path)]
        assert found.roots[0].build_dirs == ("target",)

    def test_sp_05_path_dependencies_outside_are_followed_transitively(self, tree, discover):
        crate(
            tree,
            "ws/app",
            '[dependencies]\nnormal = { path = "../../normal" }\n'
            '[dev-dependencies]\ndevdep = { path = "../../devdep" }\n'
            '[build-dependencies]\nbuilddep = { path = "../../builddep" }\n'
            "[target.'cfg(unix)'.dependencies]\nunixdep = { path = \"../../unixdep\" }\n"
            "inherited = { workspace = true }\n",
        )
        tree.write(
            "ws/Cargo.toml",
            '[workspace]\nmembers = ["app"]\n[workspace.dependencies]\ninherited = { path = "../inherited" }\n'
            '[patch.crates-io]\npatched = { path = "../patched" }\n[replace]\n"old:0.1.0" = { path = "../replaced" }\n',
        )
        for name in ("devdep", "builddep", "unixdep", "inherited", "patched", "replaced"):
            crate(tree, name)
        crate(tree, "normal", '[dependencies]\nfar = { path = "../other-ws/far" }\n')
        tree.write("other-ws/Cargo.toml", '[workspace]\nmembers = ["far"]\n')
        crate(tree, "other-ws/far")
        found = discover("cargo.build", "cargo build", tree.path / "ws/app")
        names = {os.path.relpath(path, tree.path) for path in paths(found)}
        assert names == {
            "ws", "normal", "devdep", "builddep", "unixdep", "inherited", "patched", "replaced", "other-ws",
        }  # fmt: skip
        assert paths(found)[0] == str(tree.path / "ws")

    def test_sp_05_a_dependency_on_the_parent_makes_it_the_root(self, tree, discover):
        crate(tree, "lib")
        crate(tree, "lib/fuzz", '[dependencies]\nlib = { path = ".." }\n[workspace]\n')
        assert paths(discover("cargo.build", "cargo build", tree.path / "lib/fuzz")) == [str(tree.path / "lib")]

    def test_sp_05_a_missing_dependency_stays_here_and_is_named(self, tree, discover):
        crate(tree, "app", '[dependencies]\ngone = { path = "../gone" }\n')
        error = refusal(discover, "cargo.build", "cargo build", tree.path / "app")
        assert error.code == "preflight-missing-file" and str(tree.path / "gone/Cargo.toml") in error.message

    def test_a_manifest_that_does_not_parse_stays_here(self, tree, discover):
        tree.write("Cargo.toml", "[package\n")
        assert refusal(discover, "cargo.build", "cargo build", tree.path).code == "preflight-invalid-manifest"
        (tree.path / "Cargo.toml").unlink()
        assert refusal(discover, "cargo.build", "cargo build", tree.path).code == "preflight-missing-file"

    def test_sp_05_discovery_never_writes_a_lock_file_or_anything_else(self, tree, discover):
        crate(tree, "app", '[dependencies]\nitoa = "1"\n')
        before = sorted(os.walk(tree.path))
        discover("cargo.build", "cargo build", tree.path / "app")
        assert sorted(os.walk(tree.path)) == before
        assert not (tree.path / "app/Cargo.lock").exists()

    def test_starts_no_process_and_sees_a_changed_manifest(self, tree, discover, monkeypatch):
        crate(tree, "app")
        crate(tree, "dep")
        discover("cargo.build", "cargo build", tree.path / "app")
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
        assert len(discover("cargo.build", "cargo build", tree.path / "app").roots) == 1
        monkeypatch.undo()
        crate(tree, "app", '[dependencies]\ndep = { path = "../dep" }\n')
        assert len(discover("cargo.build", "cargo build", tree.path / "app").roots) == 2

    def test_sp_05_configuration_and_toolchain_files_above_travel_without_tokens(self, tree, discover, home, tmp_path):
        crate(tree, "app")
        tree.write(".cargo/config.toml", "# kept\n[build]\nrustflags = []\n[registry]\ntoken = 'hunter2'\n")
        tree.write("rust-toolchain.toml", '[toolchain]\nchannel = "stable"\n')
        tree.write("app/.cargo/config.toml", "[net]\nretry = 2\n")
        (home / ".cargo").mkdir()
        (home / ".cargo/config.toml").write_text("[registries.x]\ntoken = 'hunter2'\nindex = 'sparse+https://x/'\n")
        (home / ".cargo/credentials.toml").write_text("[registry]\ntoken = 'hunter2'\n")
        found = discover("cargo.build", "cargo build", tree.path / "app")
        files = {f.path: f.content for f in found.extra_files}
        assert set(files) == {
            str(tree.path / ".cargo/config.toml"), str(tree.path / "rust-toolchain.toml"), str(home / ".cargo/config.toml"),
        }  # fmt: skip
        assert not any(b"hunter2" in content for content in files.values())
        assert b"# kept" in files[str(tree.path / ".cargo/config.toml")]
        assert b"sparse+https://x/" in files[str(home / ".cargo/config.toml")]
        assert ".cargo/config.toml" in found.required[found.roots[0].key]

    def test_paths_of_the_configuration_are_roots(self, tree, discover):
        crate(tree, "app")
        crate(tree, "override")
        crate(tree, "patched")
        tree.write("vendor/x/Cargo.toml", CRATE.format(name="x"))
        tree.write(
            "app/.cargo/config.toml",
            'paths = ["../override"]\n[patch.crates-io]\np = { path = "../patched" }\n[source.v]\ndirectory = "../vendor"\n',
        )
        names = {os.path.basename(p) for p in paths(discover("cargo.build", "cargo build", tree.path / "app"))}
        assert names == {"app", "override", "patched", "vendor"}

    @pytest.mark.parametrize(
        ("argv", "env", "config", "expected"),
        [
            ("cargo build", {}, "", "target"),
            ("cargo build --target-dir x/y", {"CARGO_TARGET_DIR": "env"}, 'target-dir = "cfg"', "x/y"),
            ("cargo build", {"CARGO_TARGET_DIR": "env"}, 'target-dir = "cfg"', "env"),
            ("cargo build", {"CARGO_BUILD_TARGET_DIR": "env"}, "", "env"),
            ("cargo build", {}, 'target-dir = "cfg/deep"', "cfg/deep"),
            ("cargo --config build.target-dir='inline' build", {}, 'target-dir = "cfg"', "inline"),
        ],
    )
    def test_build_directories_are_where_cargo_puts_them(self, tree, discover, argv, env, config, expected):
        tree.write("Cargo.toml", CRATE.format(name="a"))
        tree.write("src/lib.rs", "")
        if config:
            tree.write(".cargo/config.toml", f"[build]\n{config}\n")
        words = [word.replace("'inline'", '"inline"') for word in argv.split()]
        assert discover("cargo.build", words, tree.path, env).roots[0].build_dirs == (expected,)

    def test_build_dir_beside_the_target_dir_counts_too(self, tree, discover):
        tree.write("Cargo.toml", CRATE.format(name="a"))
        tree.write("src/lib.rs", "")
        tree.write(".cargo/config.toml", '[build]\nbuild-dir = "{workspace-root}/inter"\n')
        assert set(discover("cargo.build", "cargo build", tree.path).roots[0].build_dirs) == {"target", "inter"}

    def test_a_shared_target_directory_outside_means_local(self, tree, discover, tmp_path):
        crate(tree, "app")
        error = refusal(
            discover, "cargo.build", "cargo build", tree.path / "app", {"CARGO_TARGET_DIR": str(tmp_path / "t")}
        )
        assert error.code == "output-outside-roots" and str(tmp_path / "t") in error.message


@pytest.mark.skipif(
    not os.path.exists(f"{REAL_HOME}/.cargo/bin/cargo"), reason="needs a cargo of its own: CI and dev machines"
)
class TestAgainstCargoItself:
    """What is found without cargo is what `cargo metadata --no-deps` says."""

    LAYOUTS = (
        ({"Cargo.toml": CRATE.format(name="a"), "src/lib.rs": ""}, "src"),
        ({"Cargo.toml": '[workspace]\nmembers=["a","b*"]\n', "a/Cargo.toml": CRATE.format(name="a"), "a/src/lib.rs": "", "b1/Cargo.toml": CRATE.format(name="b"), "b1/src/lib.rs": ""}, "b1"),
        ({"Cargo.toml": CRATE.format(name="r") + '[workspace]\nexclude=["x"]\n', "src/lib.rs": "", "x/Cargo.toml": CRATE.format(name="x"), "x/src/lib.rs": ""}, "x"),
        ({"Cargo.toml": CRATE.format(name="r") + '[workspace]\n[dependencies]\nin={path="in"}\n', "src/lib.rs": "", "in/Cargo.toml": CRATE.format(name="in"), "in/src/lib.rs": ""}, "in/src"),
        ({"ws/Cargo.toml": '[workspace]\nmembers=["../a"]\n', "a/Cargo.toml": CRATE.format(name="a") + 'workspace="../ws"\n', "a/src/lib.rs": ""}, "a"),
        ({"Cargo.toml": CRATE.format(name="r") + "[workspace]\n", "src/lib.rs": "", "n/Cargo.toml": CRATE.format(name="n") + "[workspace]\n", "n/src/lib.rs": ""}, "n"),
        ({".cargo/config.toml": '[build]\ntarget-dir="t"\n', "p/Cargo.toml": CRATE.format(name="p"), "p/src/lib.rs": ""}, "p"),
    )  # fmt: skip

    @pytest.mark.parametrize("number", range(len(LAYOUTS)))
    def test_root_and_target_directory_agree(self, tree, number):
        files, below = self.LAYOUTS[number]
        for name, content in files.items():
            tree.write(name, content)
        cwd = tree.path / below
        env = {"PATH": os.environ["PATH"], "HOME": REAL_HOME}
        done = subprocess.run(
            [f"{REAL_HOME}/.cargo/bin/cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"],
            cwd=cwd, env=env, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        manifest = next(d / "Cargo.toml" for d in (cwd, *cwd.parents) if (d / "Cargo.toml").exists())
        layout = cargo_layout(str(manifest), str(cwd), env)
        assert (layout.root, layout.target_dirs[0]) == (said["workspace_root"], said["target_directory"])
        assert {p["manifest_path"] for p in said["packages"]} <= set(layout.manifests)
