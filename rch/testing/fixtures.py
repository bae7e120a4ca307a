"""pytest fixtures with real workers: load them with ``-p rch.testing.fixtures``.

================== ======== ==========================================================================================
fixture            scope    what
================== ======== ==========================================================================================
embedded_lab       session  an :class:`EmbeddedLab` with one provisioned worker
embedded_worker    session  its :class:`EmbeddedWorker`
embedded_pair      session  an EmbeddedLab with two provisioned workers, lab1 and lab2
container_lab      session  a :class:`ContainerLab` with one provisioned container
container_worker   session  its :class:`ContainerWorker`
twin_lab           session  a ContainerLab with one container that has this machine's packages, so that C is built there
rch_state          test     an :class:`RchState` of the embedded lab: a workstation of its own
pair_state         test     the same of ``embedded_pair``
container_state    test     the same of ``twin_lab``
any_state          test     both kinds of worker, one test each
new_state          test     a function: lab -> one more RchState (a second workstation)
project_copy       test     a function: name of an example -> path of a private copy
real_input         test     a function: name of :data:`rch.testing.inputs.INPUTS` -> path of its tree, ready to build
================== ======== ==========================================================================================

Tests that use a lab carry its marker (``sshd`` or ``container``) by themselves. Everything is taken down again, also
after a failure; what a killed run left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rch.testing import inputs
from rch.testing.lab import LAB_ROOT, EmbeddedLab, EmbeddedWorker, drop_lab_root, remove_tree, stop_daemons
from rch.testing.lab_containers import ContainerLab, ContainerWorker
from rch.testing.lab_processes import start_time
from rch.testing.lab_provision import CHECKOUT, program

SSHD_FIXTURES = frozenset({"embedded_lab", "embedded_worker", "embedded_pair", "rch_state", "pair_state"})
CONTAINER_FIXTURES = frozenset({"container_lab", "container_worker", "twin_lab", "container_state"})


class RchState:
    """One workstation: a state directory, an environment, and the rchd that may run in it."""

    def __init__(self, directory: str, lab: EmbeddedLab | ContainerLab) -> None:
        self.directory = directory
        self.lab = lab
        self.state_dir = os.path.join(directory, "state")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RCH_", "PYTEST_", "COV_"))},
            **lab.environment(self.state_dir),
            # The user's own configuration of rch stays out; cargo and git do not look here.
            "XDG_CONFIG_HOME": os.path.join(directory, "config"),
            "PATH": f"{os.path.dirname(program('rch'))}:{os.environ['PATH']}",
        }
        os.makedirs(self.state_dir, mode=0o700)
        os.makedirs(self.environment["XDG_CONFIG_HOME"], mode=0o700)
        records = os.path.join(lab.state_dir, "facts")
        if os.path.isdir(records):
            shutil.copytree(records, os.path.join(self.state_dir, "facts"))

    def run(
        self,
        *words: str,
        cwd: str | os.PathLike[str] | None = None,
        data: bytes = b"",
        timeout_s: float = 120,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program (``rch`` or any other) as this workstation would; the result is not checked."""
        return subprocess.run(
            words,
            cwd=cwd,
            input=data,
            capture_output=True,
            env={**self.environment, **(env or {})},
            timeout=timeout_s,
            check=False,
        )

    def exec(
        self,
        *command: str,
        cwd: str | os.PathLike[str],
        options: tuple[str, ...] = (),
        data: bytes = b"",
        timeout_s: float = 120,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """``rch exec [options] -- command`` in *cwd*."""
        return self.run("rch", "exec", *options, "--", *command, cwd=cwd, data=data, timeout_s=timeout_s, env=env)

    def close(self) -> None:
        """Stop rchd, gently, then for sure, and remove the directory."""
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            self.run("rch", "daemon", "stop", timeout_s=20)
        stop_daemons(self.directory)
        remove_tree(self.directory)


# --- the session's place ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab_place() -> Iterator[str]:
    """A directory of this test process below ``.lab``; those of dead processes are taken down first."""
    os.makedirs(LAB_ROOT, mode=0o700, exist_ok=True)
    for name in os.listdir(LAB_ROOT):
        if name.startswith("t-"):
            _, pid, ticks = name.split("-")
            if start_time(int(pid)) != int(ticks):
                _take_down(os.path.join(LAB_ROOT, name))
    place = os.path.join(LAB_ROOT, f"t-{os.getpid()}-{start_time(os.getpid())}")
    os.makedirs(place, mode=0o700)
    try:
        yield place
    finally:
        _take_down(place)
        drop_lab_root()


def _take_down(place: str) -> None:
    stop_daemons(place)
    for name in os.listdir(place):
        directory = os.path.join(place, name)
        if name.startswith("box"):
            ContainerLab(directory).down()
        elif name.startswith("emb"):
            EmbeddedLab(directory).down()
    remove_tree(place)


# --- labs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def embedded_lab(lab_place: str) -> Iterator[EmbeddedLab]:
    with EmbeddedLab(os.path.join(lab_place, "emb")) as lab:
        yield lab


@pytest.fixture(scope="session")
def embedded_worker(embedded_lab: EmbeddedLab) -> EmbeddedWorker:
    return embedded_lab.worker


@pytest.fixture(scope="session")
def embedded_pair(lab_place: str) -> Iterator[EmbeddedLab]:
    with EmbeddedLab(os.path.join(lab_place, "emb2"), workers=2) as lab:
        yield lab


@pytest.fixture(scope="session")
def container_lab(lab_place: str) -> Iterator[ContainerLab]:
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    with ContainerLab(os.path.join(lab_place, "box")) as lab:
        yield lab


@pytest.fixture(scope="session")
def twin_lab(lab_place: str) -> Iterator[ContainerLab]:
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    with ContainerLab(os.path.join(lab_place, "box-twin"), twin=True) as lab:
        yield lab


@pytest.fixture(scope="session")
def container_worker(container_lab: ContainerLab) -> ContainerWorker:
    return container_lab.worker


# --- workstations -------------------------------------------------------------------------------------------------

_numbers = itertools.count(1)


@pytest.fixture
def new_state(lab_place: str) -> Iterator[Callable[[EmbeddedLab | ContainerLab], RchState]]:
    states: list[RchState] = []

    def make(lab: EmbeddedLab | ContainerLab) -> RchState:
        state = RchState(os.path.join(lab_place, f"w{next(_numbers)}"), lab)
        states.append(state)
        return state

    try:
        yield make
    finally:
        for state in states:
            state.close()


@pytest.fixture
def rch_state(embedded_lab: EmbeddedLab, new_state: Callable[[EmbeddedLab], RchState]) -> RchState:
    return new_state(embedded_lab)


@pytest.fixture
def pair_state(embedded_pair: EmbeddedLab, new_state: Callable[[EmbeddedLab], RchState]) -> RchState:
    return new_state(embedded_pair)


@pytest.fixture
def container_state(twin_lab: ContainerLab, new_state: Callable[[ContainerLab], RchState]) -> RchState:
    return new_state(twin_lab)


@pytest.fixture(
    params=[
        pytest.param("rch_state", marks=pytest.mark.sshd, id="embedded"),
        pytest.param("container_state", marks=pytest.mark.container, id="container"),
    ]
)
def any_state(request: pytest.FixtureRequest) -> RchState:
    state = request.getfixturevalue(request.param)
    assert isinstance(state, RchState)
    return state


@pytest.fixture
def project_copy(tmp_path: Path) -> Callable[[str], str]:
    def copy(name: str) -> str:
        """Copy example *name* and what it uses from beside it; the path of the copy."""
        place = tmp_path / "examples"
        for example in {name, *(("shared-greeting",) if name == "workspace" else ())}:
            shutil.copytree(
                os.path.join(CHECKOUT, "examples", example),
                place / example,
                # What a build left in the checkout is no part of the example.
                ignore=shutil.ignore_patterns("target", "build", "*.o", "*.d", "hello", "mkmessages", "messages.h"),
            )
        return str(place / name)

    return copy


@pytest.fixture
def real_input(tmp_path: Path) -> Callable[[str], str]:
    place = tmp_path / "inputs"
    place.mkdir()
    return lambda name: inputs.unpack(name, str(place))


# --- where tests run ----------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the lab they use, and group them: one container lab in all, else the tests of a file together."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SSHD_FIXTURES:
            item.add_marker("sshd")
        if fixtures & CONTAINER_FIXTURES:
            item.add_marker("container")
        if item.get_closest_marker("xdist_group") is None:
            group = "container" if item.get_closest_marker("container") else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """A test that kills its process fails; with xdist's own scheduler the run would never end."""
    if config.getoption("dist") != "loadgroup":
        return None
    from rch.testing.crashes import CrashProofScheduling  # xdist is there now

    return CrashProofScheduling(config, log)
