"""What a go command reads beside its project, told without asking go."""

import os

import pytest

from rch.project import ManifestRules, golang
from rch.project.build import build_project
from rch.project.golang import GoLayout, go_layout, go_settings
from rch.project.listing import list_root
from rch.project.roots import discover_roots
from rch.project.settings import ProjectSettings
from rch.toolchains import KINDS

SUM = """\
example.org/Greet v1.2.0 h1:abc=
example.org/Greet v1.2.0/go.mod h1:def=
example.org/deep/x v0.0.0-20200101000000-ABCDEF h1:abc=
"""


@pytest.fixture
def env(tmp_path):
    (tmp_path / "home" / ".cache" / "go-build").mkdir(parents=True)
    return {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}


@pytest.fixture
def module(tree):
    tree.write("go.mod", "module example.com/app\n")
    tree.write("go.sum", SUM)
    return tree


def roots(tree, env, kind="go.build"):
    return discover_roots(["go", "build"], KINDS[kind], tree.real, env, ProjectSettings(), client_id="c", uid=0)


class TestTheCaches:
    def test_are_where_go_has_them_by_default(self, env):
        assert golang.module_cache(env) == f"{env['HOME']}/go/pkg/mod"
        assert golang.build_cache(env) == f"{env['HOME']}/.cache/go-build"

    def test_are_where_a_variable_or_else_the_written_settings_say(self, env, tmp_path):
        place = tmp_path / "home" / ".config" / "go"
        place.mkdir(parents=True)
        (place / "env").write_text("GOMODCACHE=/written\nGOCACHE=/kept\nGOPROXY=direct\nNO_SUCH=1\n")
        assert golang.module_cache({**env, "GOMODCACHE": "/said"}) == "/said"
        assert golang.module_cache(env) == "/written"
        assert golang.build_cache({**env, "GOENV": "off"}) == f"{env['HOME']}/.cache/go-build"
        assert go_settings(env) == {"GOMODCACHE": "/written", "GOCACHE": "/kept", "GOPROXY": "direct"}

    def test_the_build_cache_is_a_build_directory_behind_the_project(self, module, env):
        found = roots(module, env)
        assert [root.path for root in found.roots] == [module.real, f"{env['HOME']}/.cache/go-build"]
        assert found.roots[1].build_dirs == golang.BUILD_CACHE_DIRS

    def test_two_projects_do_not_wait_for_each_others_build_cache(self, tmp_path, module, env):
        other = tmp_path / "other"
        other.mkdir()
        (other / "go.mod").write_text("module other\n")
        there = discover_roots(
            ["go", "build"], KINDS["go.build"], str(other), env, ProjectSettings(), client_id="c", uid=0
        )
        assert there.roots[1].path == roots(module, env).roots[1].path
        assert there.roots[1].key != roots(module, env).roots[1].key

    def test_a_build_cache_that_is_not_there_is_not_made(self, module, env, tmp_path):
        (tmp_path / "home" / ".cache" / "go-build").rmdir()
        assert [root.path for root in roots(module, env).roots] == [module.real]
        assert not (tmp_path / "home" / ".cache" / "go-build").exists()


class TestTheModules:
    def test_that_a_replace_or_a_use_names_become_roots(self, tmp_path, env):
        for name in ("app", "lib", "tool"):
            (tmp_path / "ws" / name).mkdir(parents=True)
            (tmp_path / "ws" / name / "go.mod").write_text(f"module example.com/{name}\n")
        (tmp_path / "far").mkdir()
        with open(tmp_path / "ws" / "app" / "go.mod", "a") as file:
            file.write("replace (\n\texample.com/far v1.0.0 => ../../far // near\n\ta => b v1.0.0\n)\n")
        (tmp_path / "ws" / "go.work").write_text("go 1.22\n\nuse (\n\t./app\n\t./lib // ours\n)\nuse ./tool\n")
        found = go_layout(str(tmp_path / "ws" / "app"), env)
        assert found.main == str(tmp_path / "ws")
        assert found.modules == tuple(str(tmp_path / "ws" / name) for name in ("app", "lib", "tool"))
        assert str(tmp_path / "far") in found.outside
        assert go_layout(str(tmp_path / "ws" / "app"), {**env, "GOWORK": "off"}).main == str(tmp_path / "ws" / "app")

    def test_te_04_that_this_machine_has_are_named_as_the_cache_spells_them(self, module, tmp_path):
        place = tmp_path / "mod" / "cache" / "download" / "example.org" / "!greet" / "@v"
        place.mkdir(parents=True)
        for name in ("v1.2.0.zip", "v1.2.0.ziphash", "v1.2.0.mod", "v9.zip"):
            (place / name).write_text("")
        found = golang.module_files(GoLayout(module.real, (module.real,)), str(tmp_path / "mod"))
        stem = "cache/download/example.org/!greet/@v/v1.2.0"
        assert found == (f"{stem}.mod", f"{stem}.zip", f"{stem}.ziphash")

    def test_of_a_hostile_sum_file_leave_the_cache_nowhere(self, module, tmp_path):
        (tmp_path / "secret.zip").write_text("")
        module.write("go.sum", "../../../secret v1 h1:x=\n/etc v1 h1:x=\na/../../b v1/../x h1:x=\n")
        assert golang.module_files(GoLayout(module.real, (module.real,)), str(tmp_path / "mod")) == ()


class TestTheFetchStep:
    def test_downloads_where_modules_come_from_elsewhere(self, module):
        layout = GoLayout(module.real, (module.real,))
        assert golang.fetch_step(layout, ["go", "build"]) == (
            ("go", "-C", module.real, "mod", "download", "-modcacherw"),
        )

    def test_is_none_without_modules_or_with_all_of_them_in_vendor(self, module, env):
        assert golang.fetch_step(GoLayout(module.real, (module.real,)), ["go", "build", "-mod=vendor"]) == ()
        module.write("vendor/modules.txt", "")
        assert golang.fetch_step(go_layout(module.real, env), ["go", "build"]) == ()
        module.write("go.sum", "")
        assert golang.fetch_step(GoLayout(module.real, (module.real,)), ["go", "build"]) == ()

    def test_has_a_stamp_that_follows_the_modules_and_not_the_sources(self, module, env, tmp_path):
        def stamp():
            project = build_project(
                ["go", "build"], KINDS["go.build"], module.real, env, ProjectSettings(), str(tmp_path / "s"), "c", 0
            )
            return project.fetch_stamp

        if not any(os.access(os.path.join(path, "go"), os.X_OK) for path in env["PATH"].split(":")):
            pytest.skip("needs go here; the CI machine has it")
        module.write("main.go", "package main\n")
        first = stamp()
        assert first
        module.write("main.go", "package main\n\nfunc main() {}\n")
        assert stamp() == first
        module.write("go.sum", SUM + "example.org/new v1.0.0 h1:x=\n")
        assert stamp() != first


def test_installed_packages_of_node_travel_although_git_ignores_them(tree, env):
    tree.git("init", "-q")
    tree.write(".gitignore", "node_modules/\nlogs/\n")
    tree.write("package.json", "{}")
    tree.write("node_modules/a/node_modules/b/index.js")
    tree.write("node_modules/a/lib.so")
    tree.write("logs/x")
    found = roots(tree, env, "tsc.check")
    rules = ManifestRules(force_include=found.installed)
    listed = list_root(tree.real, rules, ignored_inputs=False, build_dirs=(), also=()).files
    assert set(listed) == {
        *(".gitignore", "package.json", "node_modules/a/node_modules/b/index.js", "node_modules/a/lib.so"),
    }
    assert roots(tree, env, "go.vet").installed == ()
