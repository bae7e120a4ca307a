"""A worker that reaches this machine and nothing else: its Rust comes from here, and so do the crates of a real project."""

import os
import re
import subprocess

import pytest

from rch.fleet import read_registry
from rch.testing import inputs
from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import provision
from rch.testing.products import cargo_units, job, sent_out, succeeded

ASKS = """\
use std::{env, fs, process::Command};
fn main() {
    let done = Command::new(env::var("RUSTC").unwrap()).arg("-vV").output().unwrap();
    fs::write("target/said", done.stdout).unwrap();
}
"""

pytestmark = [pytest.mark.container, pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def lab(lab_place):
    """A twin of this machine (nothing is to be installed there) whose network ends here, provisioned after the cut."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, "box-offline"), twin=True)
    try:
        lab.up(with_roles=False)
        lab.worker.cut_off()
        provision(lab.inventory, scratch=lab.directory, state_dir=lab.state_dir, timeout_s=600)
        yield lab
    finally:
        lab.down()


@pytest.fixture
def state(lab, new_state):
    return new_state(lab)


@pytest.fixture
def rust(lab):
    """Where the compiler lies there that this machine uses, and what it says here."""
    said = subprocess.run(["rustc", "-vV"], cwd="/", capture_output=True, text=True, check=True).stdout.strip()
    rows = read_registry(lab.state_dir).workers["box1"].observed.facts["toolchains"]["rust"]
    (row,) = [row for row in rows if row["identity"] == said]
    return row["binds"][row["sysroot"]], said


class TestAWorkerWithoutInternet:
    def test_has_none(self, lab):
        done = lab.worker.run("ip", "route", "get", "192.0.2.1")
        assert b"unreachable" in done.stderr

    def test_has_the_very_compiler_of_this_machine(self, lab, state, rust, tmp_path):
        place, said = rust
        assert lab.worker.run("runuser", "-u", "rch", "--", f"{place}/bin/rustc", "-vV").stdout.decode().strip() == said
        # And the one that a build there meets is that one.
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "lib.rs").touch()
        (tmp_path / "Cargo.toml").write_text(
            '[package]\nname = "asks"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
        )
        (tmp_path / "build.rs").write_text(ASKS)
        sent_out(state, "cargo", "build", cwd=str(tmp_path))
        assert (tmp_path / "target" / "said").read_text().strip() == said

    def test_builds_ripgrep_with_the_crates_of_this_machine(self, state, real_input):
        tree = real_input("ripgrep")
        wanted = inputs.INPUTS["ripgrep"]
        succeeded(state.run("cargo", "fetch", "--locked", "--quiet", cwd=tree, timeout_s=300))
        text = sent_out(state, *wanted.build, "-v", cwd=tree, timeout_s=600)
        units = cargo_units(text, "Compiling")
        assert len(units) > 30
        assert "Downloading" not in text
        assert re.match(r"ripgrep \d", succeeded(state.run(os.path.join(tree, wanted.product), "--version")))
        here = succeeded(state.run(*wanted.build, "-v", "--offline", cwd=tree))
        assert cargo_units(here, "Compiling") == []
        assert set(cargo_units(here, "Fresh")) == set(units)


class TestACompilerThatChangedThere:
    def test_is_found_shown_avoided_and_brought_back(self, lab, state, rust, project_copy):
        """Somebody put another rustc into the copied toolchain."""
        place, said = rust
        program = f"{place}/bin/rustc"
        version = re.search(r"release: (\S+)", said)[1]
        other = f'#!/bin/sh\n"$0.was" "$@" | sed "s/{version}/1.0.0/"\n'
        script = f"mv {program} {program}.was && cat >{program} && chmod 755 {program}"
        lab.podman.run("exec", "--interactive", lab.worker.container, "sh", "-c", script, data=other.encode())
        workspace = project_copy("workspace")

        succeeded(state.run("rch", "daemon", "start"))
        succeeded(state.run("rch", "workers", "probe", "box1"))
        shown = succeeded(state.run("rch", "status", "-w"))
        assert re.search(rf"drift: rust: this machine has rustc {version} .*, it has none", shown)
        assert "next: rch workers sync box1" in shown

        done = state.exec("cargo", "build", cwd=workspace)
        text = succeeded(done)
        assert re.search(rf"\[rch\] local: .*rustc {version}", text), text
        assert job(state, text)["worker"] == "here"
        refused = state.exec("cargo", "build", cwd=workspace, options=("--require-remote",))
        assert refused.returncode == 103

        succeeded(state.run("rch", "workers", "sync", "box1", timeout_s=600))
        assert "drift" not in succeeded(state.run("rch", "status", "-w"))
        sent_out(state, "cargo", "build", cwd=workspace)
