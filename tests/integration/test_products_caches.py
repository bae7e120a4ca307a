"""Crates reach workers from the workstation, or from the registry where nobody has them; jobs only read them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rch.testing.products import cargo_units, contents, job, sent_out, succeeded

USERS_HOME = Path(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"))

OFFLINE = '[execution]\nnetwork = "none"\n'


@pytest.fixture
def cargo_home(tmp_path):
    """A CARGO_HOME with the one crate that examples/workspace needs, and its index entry."""
    home = tmp_path / "cargo home"
    for kind, pattern in (
        ("cache", "*/itoa-1.0.11.crate"),
        ("index", "*/.cache/it/oa/itoa"),
        ("index", "*/config.json"),
    ):
        for path in (USERS_HOME / "registry" / kind).glob(pattern):
            target = home / path.relative_to(USERS_HOME)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return home


@pytest.fixture
def cold_worker(embedded_worker):
    """The embedded worker with nothing in its shared cache; what was there comes back."""
    cache = Path(embedded_worker.cache_dir, "caches", "cargo")
    aside = cache.with_name("cargo-aside")
    if cache.exists():
        cache.rename(aside)
    yield cache
    shutil.rmtree(cache, ignore_errors=True)
    if aside.exists():
        aside.rename(cache)


@pytest.fixture(autouse=True)
def _the_crate_is_here(project_copy):
    """The user's own CARGO_HOME gets the crate from the registry, once."""
    subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=project_copy("workspace"), check=True, timeout=120)


def offline(state):
    config = Path(state.environment["XDG_CONFIG_HOME"], "rch")
    config.mkdir(exist_ok=True)
    (config / "config.toml").write_text(OFFLINE)


class TestACrateOfThisWorkstation:
    def test_reaches_a_worker_without_internet(self, rch_state, cold_worker, cargo_home, project_copy, tmp_path):
        offline(rch_state)
        place, env = str(tmp_path / "examples" / "workspace"), {"CARGO_HOME": str(cargo_home)}
        text = sent_out(rch_state, "cargo", "build", "-v", "--locked", cwd=place, env=env)
        assert "itoa" in cargo_units(text, "Compiling")
        assert [p.name for p in cold_worker.glob("registry/cache/*/*")] == ["itoa-1.0.11.crate"]
        here = succeeded(rch_state.run("cargo", "build", "-v", "--locked", "--offline", cwd=place, env=env))
        assert cargo_units(here, "Compiling") == []

    def test_is_sent_once(self, rch_state, new_state, embedded_lab, cold_worker, cargo_home, tmp_path):
        place, env = str(tmp_path / "examples" / "workspace"), {"CARGO_HOME": str(cargo_home)}
        sent_out(rch_state, "cargo", "build", "--locked", cwd=place, env=env)
        crate = next(cold_worker.glob("registry/cache/*/*"))
        first = crate.stat()
        other = new_state(embedded_lab)  # another workstation with the same crate
        sent_out(other, "cargo", "build", "--locked", cwd=place, env=env)
        assert crate.stat() == first

    def test_a_newer_index_entry_replaces_a_stale_one(self, rch_state, cold_worker, cargo_home, tmp_path):
        offline(rch_state)
        place, env = str(tmp_path / "examples" / "workspace"), {"CARGO_HOME": str(cargo_home)}
        entry = next(cargo_home.glob("registry/index/*/.cache/it/oa/itoa"))
        good = entry.read_bytes()
        # What lay here before the crate's newest versions came out: an entry that does not have them.
        lines = good.split(b"\0")
        kept = [n for n, part in enumerate(lines) if part == b"1.0.11"]
        assert kept, "the index entry's layout is not the expected one"
        entry.write_bytes(b"\0".join(lines[: kept[0]] + lines[kept[0] + 2 :]))
        stale_time = entry.stat().st_mtime_ns - 3_600_000_000_000
        os.utime(entry, ns=(stale_time, stale_time))
        refused = rch_state.exec("cargo", "build", "--locked", cwd=place, env=env, options=("--require-remote",))
        assert refused.returncode != 0
        entry.write_bytes(good)
        text = sent_out(rch_state, "cargo", "build", "-v", "--locked", cwd=place, env=env)
        assert "itoa" in cargo_units(text, "Compiling")

    def test_an_older_index_entry_does_not_replace_a_newer_one(self, rch_state, cold_worker, cargo_home, tmp_path):
        place, env = str(tmp_path / "examples" / "workspace"), {"CARGO_HOME": str(cargo_home)}
        sent_out(rch_state, "cargo", "build", "--locked", cwd=place, env=env)
        there = next(cold_worker.glob("registry/index/*/.cache/it/oa/itoa"))
        before = there.stat()
        entry = next(cargo_home.glob("registry/index/*/.cache/it/oa/itoa"))
        os.utime(entry, ns=(before.st_mtime_ns - 10**12,) * 2)
        succeeded(rch_state.run("rch", "daemon", "stop"))  # what rchd remembers of the worker goes with it
        with open(f"{place}/crates/app/src/main.rs", "a") as file:
            file.write("// edited\n")
        sent_out(rch_state, "cargo", "build", "--locked", cwd=place, env=env)
        assert there.stat().st_mtime_ns == before.st_mtime_ns


class TestACrateThatNobodyHas:
    def test_is_fetched_by_the_worker_and_not_needed_here(self, rch_state, cold_worker, tmp_path):
        place = str(tmp_path / "examples" / "workspace")
        empty = tmp_path / "empty home"
        empty.mkdir()
        text = sent_out(rch_state, "cargo", "build", "-v", "--locked", cwd=place, env={"CARGO_HOME": str(empty)})
        assert "itoa" in cargo_units(text, "Compiling")
        assert list(cold_worker.glob("registry/cache/*/itoa-1.0.11.crate"))
        assert not any(path.is_file() for path in empty.rglob("*"))

    def test_without_internet_there_the_command_runs_here_and_says_so(self, rch_state, cold_worker, tmp_path):
        offline(rch_state)
        place = str(tmp_path / "examples" / "workspace")
        empty = tmp_path / "empty home"
        empty.mkdir()
        done = rch_state.exec("cargo", "build", "--locked", cwd=place, env={"CARGO_HOME": str(empty)})
        assert done.returncode == 0, done.stderr.decode()
        newest = job(rch_state)
        assert newest["worker"] == "here"
        assert b"fetch failed" in done.stderr


BUILD_RS = """\
use std::{env, fs, io};
fn try_it(what: &str, found: io::Result<()>) {
    println!("cargo:warning={} {:?}", what, found.map_err(|e| e.raw_os_error()));
}
fn main() {
    let home = env::var("CARGO_HOME").unwrap();
    let registry = format!("{home}/registry");
    let src = fs::read_dir(format!("{registry}/src")).unwrap().next().unwrap().unwrap().path();
    try_it("source", fs::write(src.join("itoa-1.0.11/src/lib.rs"), "compile_error!(\\"changed\\");"));
    try_it("new", fs::create_dir(src.join("evil-1.0.0")));
    try_it("index", fs::remove_dir_all(format!("{registry}/index")));
    let cache = fs::read_dir(format!("{registry}/cache")).unwrap().next().unwrap().unwrap().path();
    try_it("crate", fs::remove_file(cache.join("itoa-1.0.11.crate")));
}
"""


WRAPPER = """\
#!/bin/sh
echo "$RCH_JOB" >>"$CARGO_HOME/registry/touched" && echo "wrapper wrote the registry" >&2
exec "$@"
"""


@pytest.fixture
def evil(tmp_path):
    """A project that means harm."""
    place = tmp_path / "evil"
    (place / "src").mkdir(parents=True)
    (place / "Cargo.toml").write_text(
        '[package]\nname = "evil"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nitoa = "=1.0.11"\n[workspace]\n'
    )
    (place / "src" / "lib.rs").write_text("")
    return place


class TestTheRegistryInAJob:
    def test_ex_10_is_read_only_for_a_build_script(self, rch_state, cold_worker, cargo_home, evil, tmp_path):
        env = {"CARGO_HOME": str(cargo_home)}
        (evil / "build.rs").write_text(BUILD_RS)
        place = str(tmp_path / "examples" / "workspace")
        sent_out(rch_state, "cargo", "build", "--locked", cwd=place, env=env)
        before = contents(str(cold_worker))
        # There is no Cargo.lock yet: it is made there and comes back.
        text = sent_out(rch_state, "cargo", "build", cwd=str(evil), env=env)
        assert 'name = "itoa"' in (evil / "Cargo.lock").read_text()
        for what in ("source", "new", "index", "crate"):
            assert f"{what} Err(Some(30))" in text  # EROFS
        changed = {p for p, v in contents(str(cold_worker)).items() if before.get(p) != v}
        assert not [p for p in changed if b"itoa-" in p or b"evil" in p]

    @pytest.mark.parametrize("key", ["rustc-wrapper", "rustc-workspace-wrapper", "rustc"])
    def test_ex_10_is_read_only_for_a_compiler_that_the_project_names(
        self, rch_state, cold_worker, cargo_home, evil, key
    ):
        (evil / ".cargo").mkdir()
        (evil / ".cargo" / "config.toml").write_text(f'[build]\n{key} = "./wrapper.sh"\n')
        (evil / "wrapper.sh").write_text(WRAPPER if key != "rustc" else WRAPPER.replace('"$@"', 'rustc "$@"'))
        (evil / "wrapper.sh").chmod(0o755)
        text = sent_out(rch_state, "cargo", "build", cwd=str(evil), env={"CARGO_HOME": str(cargo_home)})
        assert "Read-only file system" in text  # the wrapper ran, in the job
        assert "wrapper wrote" not in text
        assert not (cold_worker / "registry" / "touched").exists()
