"""go build, vet and test on a worker: modules come from the workstation, and what was compiled comes back."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from rch.testing.products import contents, job, sent_out, succeeded

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="needs go here; the CI machine has it")

MODULE = "example.org/Greet"
"""A capital letter, which the module cache spells in another way."""

PROGRAM = f"""\
package main

import (
	"fmt"
	"os"

	"{MODULE}"
	"example.com/app/parts"
)

func main() {{ fmt.Fprintln(os.Stdout, Greet.Hello(parts.Name())) }}
"""


@pytest.fixture
def proxy(tmp_path):
    """A module proxy in a directory that no worker sees, with one module."""
    place = tmp_path / "proxy" / "example.org" / "!greet" / "@v"
    place.mkdir(parents=True)
    (place / "list").write_text("v1.2.0\n")
    (place / "v1.2.0.info").write_text('{"Version": "v1.2.0"}')
    (place / "v1.2.0.mod").write_text(f"module {MODULE}\n\ngo 1.20\n")
    with zipfile.ZipFile(place / "v1.2.0.zip", "w") as archive:
        archive.writestr(f"{MODULE}@v1.2.0/go.mod", f"module {MODULE}\n\ngo 1.20\n")
        text = 'package Greet\n\nfunc Hello(name string) string { return "hello " + name }\n'
        archive.writestr(f"{MODULE}@v1.2.0/greet.go", text)
    return tmp_path / "proxy"


@pytest.fixture
def home(tmp_path, proxy):
    """What a user of Go has: caches of its own, and settings that ``go env -w`` wrote down."""
    home = tmp_path / "gopher"
    (home / ".config" / "go").mkdir(parents=True)
    (home / ".cache" / "go-build").mkdir(parents=True)
    (home / ".config" / "go" / "env").write_text(f"GOPROXY=file://{proxy}\nGONOSUMDB=*\nGOFLAGS=-modcacherw\n")
    yield {"HOME": str(home), "XDG_CONFIG_HOME": "", "GOFLAGS": "", "GOPROXY": "", "GOPATH": "", "GOCACHE": ""}
    subprocess.run(["chmod", "-R", "u+w", home], check=True, timeout=60)


@pytest.fixture
def app(tmp_path, home):
    app = tmp_path / "app"
    (app / "parts").mkdir(parents=True)
    (app / "go.mod").write_text(f"module example.com/app\n\ngo 1.20\n\nrequire {MODULE} v1.2.0\n")
    (app / "main.go").write_text(PROGRAM)
    (app / "parts" / "parts.go").write_text('package parts\n\nfunc Name() string { return "gopher" }\n')
    (app / "parts" / "parts_test.go").write_text(
        'package parts\n\nimport "testing"\n\nfunc TestName(t *testing.T) {\n\tif Name() != "gopher" {\n\t\tt.Fatal(Name())\n\t}\n}\n'
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("GO")} | {"HOME": home["HOME"]}
    subprocess.run(["go", "mod", "tidy"], cwd=app, env=env, check=True, timeout=120)
    # All that a build needs, and less than `go mod download` asks for.
    assert not list(Path(home["HOME"], "go").rglob("v1.2.0.info"))
    return app


def compiled(text):
    """Packages that ``go build -x`` compiled: every ``-p NAME`` of its compiler's command lines."""
    return sorted(line.split(" -p ", 1)[1].split()[0] for line in text.splitlines() if "/compile -o " in line)


@pytest.mark.slow
class TestAModuleWithADependency:
    def test_is_built_there_and_nothing_is_left_to_do_here(self, rch_state, embedded_worker, app, home):
        sent_out(rch_state, "go", "build", "-o", "bin/app", ".", cwd=str(app), env=home)
        assert job(rch_state)["kind"] == "go.build"
        there = Path(embedded_worker.cache_dir, "caches", "go", "mod", "cache", "download", "example.org", "!greet")
        assert (there / "@v" / "v1.2.0.zip").is_file()

        said = subprocess.run([app / "bin" / "app"], capture_output=True, text=True, check=True, timeout=60).stdout
        assert said == "hello gopher\n"
        before = contents(str(app))
        again = succeeded(rch_state.run("go", "build", "-x", "-o", "bin/app", ".", cwd=app, env=home))
        assert compiled(again) == []
        assert "/link -o" not in again
        assert contents(str(app)) == before

        # The same bytes as a build that never left this machine.
        clean = {**home, "GOCACHE": str(app.parent / "cold")}
        succeeded(rch_state.run("go", "build", "-o", "here", ".", cwd=app, env=clean))
        assert (app / "here").read_bytes() == (app / "bin" / "app").read_bytes()

    def test_is_compiled_anew_as_far_as_it_changed(self, rch_state, app, home):
        sent_out(rch_state, "go", "build", "./...", cwd=str(app), env=home)
        (app / "parts" / "parts.go").write_text('package parts\n\nfunc Name() string { return "badger" }\n')
        text = sent_out(rch_state, "go", "build", "-x", "./...", cwd=str(app), env=home)
        assert compiled(text) == ["example.com/app/parts", "main"]
        assert compiled(succeeded(rch_state.run("go", "build", "-x", "./...", cwd=app, env=home))) == []

    def test_is_tested_and_vetted_there(self, rch_state, app, home):
        assert "ok  \texample.com/app/parts" in sent_out(rch_state, "go", "test", "./...", cwd=str(app), env=home)
        sent_out(rch_state, "go", "vet", "./...", cwd=str(app), env=home)

    def test_stays_here_with_one_reason_when_a_module_is_nowhere(self, rch_state, embedded_worker, app, home, proxy):
        shutil.rmtree(Path(home["HOME"], "go"))
        modules = os.path.join(embedded_worker.cache_dir, "caches", "go", "mod")  # earlier tests brought it there
        subprocess.run(["chmod", "-R", "u+w", modules], check=False, timeout=60)
        shutil.rmtree(modules, ignore_errors=True)
        hidden = proxy.rename(proxy.with_name("hidden"))
        done = rch_state.exec("go", "build", "./...", cwd=str(app), env={**home, "GOPROXY": "off"})
        assert done.returncode != 0
        assert done.stderr.count(b"[rch] local: ") == 1
        assert b"fetch failed: go -C" in done.stderr
        hidden.rename(proxy)
