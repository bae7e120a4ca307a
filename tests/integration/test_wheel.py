"""The wheel in a clean environment: the programs, the collection, and a worker provisioned from an empty directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from typing_extensions import override

from rch.testing.lab import EmbeddedLab
from rch.testing.lab_provision import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*words: str, cwd: Path, timeout_s: float = 1000, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "TMPDIR", "LANG")
    env = {name: value for name, value in os.environ.items() if name in kept or name.lower().endswith("proxy")}
    env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return subprocess.run(
        words,
        cwd=cwd,
        env={**env, "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs a program of a clean environment with rch's wheel, in an empty directory of its own."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    listed = run("git", "ls-files", "-z", cwd=Path(CHECKOUT)).stdout.split("\0")
    for name in filter(None, listed):
        # What is tracked, as a clone has it: nothing that happens to lie in the checkout gets into the wheel.
        if os.path.isfile(os.path.join(CHECKOUT, name)):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.join(CHECKOUT, name), source / name)
    pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
    built = run(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(place), str(source), cwd=place)
    assert built.returncode == 0, built.stderr
    (wheel,) = place.glob("rch-*.whl")
    shutil.rmtree(source)
    venv = place / "venv"
    assert run(sys.executable, "-m", "venv", str(venv), cwd=place).returncode == 0
    constraints = os.path.join(CHECKOUT, "constraints.txt")
    done = run(str(venv / "bin/python"), *pip, "install", "--constraint", constraints, str(wheel), cwd=place)
    assert done.returncode == 0, done.stderr
    empty = place / "empty"
    empty.mkdir()

    def within(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{venv}/bin:{os.environ['PATH']}"
        return run(str(venv / "bin" / program), *words, cwd=empty, PATH=path, **environment)

    return within


class TestTheInstalledWheel:
    def test_has_the_programs(self, installed: Run) -> None:
        from rch import __version__

        assert installed("rch", "--version").stdout == f"rch {__version__}\n"
        assert installed("rchd", "--version").stdout == f"rchd {__version__}\n"
        assert installed("rchd", "--verbose").returncode == 2
        assert "complete -o nosort" in installed("rch", "completion", "bash").stdout

    @pytest.mark.parametrize("name", ["site", "workers", "workstation", "probe"])
    def test_has_the_playbooks_from_any_directory(self, installed: Run, name: str, tmp_path: Path) -> None:
        done = installed(
            "ansible-playbook", "--syntax-check", "-i", "localhost,", f"rch.fleet.{name}", ANSIBLE_HOME=str(tmp_path)
        )
        assert done.returncode == 0, done.stderr
        assert "[WARNING]: Unable" not in done.stderr

    def test_has_the_roles_with_their_documentation(self, installed: Run, tmp_path: Path) -> None:
        listed = installed("ansible-doc", "-t", "role", "-l", "rch.fleet", ANSIBLE_HOME=str(tmp_path)).stdout
        for role in os.listdir(os.path.join(CHECKOUT, "roles")):
            assert f"rch.fleet.{role}" in listed

    def test_has_the_plugins_with_their_documentation(self, installed: Run, tmp_path: Path) -> None:
        for name in ("quick_command", "quick_file"):
            shown = installed("ansible-doc", "-j", f"rch.fleet.{name}", ANSIBLE_HOME=str(tmp_path)).stdout
            assert f'"rch.fleet.{name}"' in shown

    @pytest.mark.heavy
    def test_provisions_a_worker_and_builds_on_it(self, installed: Run, lab_place: str, tmp_path: Path) -> None:
        with BareLab(os.path.join(lab_place, "emb-wheel")) as lab:
            state = os.path.join(lab_place, "ws")
            environment = {
                "RCH_INVENTORY": lab.inventory,
                "RCH_STATE_DIR": state,
                "XDG_CONFIG_HOME": str(tmp_path / "config"),
                "ANSIBLE_HOME": str(tmp_path / "ansible"),
            }
            try:
                done = installed("rch", "init", "--yes", "--no-hooks", **environment)
                assert done.returncode == 0, done.stderr
                assert "In the inventory: lab1" in done.stderr
                assert "ansible-playbook site.yml  1 host" in done.stderr
                assert "Fresh here. Ready." in done.stderr
                # The worker runs what the wheel carries, and the checkout's source is the same.
                plan = installed("rch", "fleet", "plan", **environment)
                assert plan.stdout == "nothing would change on 1 host\n", plan.stdout + plan.stderr
            finally:
                installed("rch", "daemon", "stop", **environment)


class BareLab(EmbeddedLab):
    """A lab whose workers nobody has provisioned yet."""

    @override
    def __enter__(self) -> Self:
        self.up(with_roles=False)
        return self
