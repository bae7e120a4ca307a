"""The developer's tasks: ``inv --list``. Thin: each calls the library or the ``rch`` program."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import Task, task

from rch.errors import RchError
from rch.testing.lab import DEFAULT_DIR as EMBEDDED_DIR
from rch.testing.lab import EmbeddedLab
from rch.testing.lab_containers import DEFAULT_DIR as CONTAINERS_DIR
from rch.testing.lab_containers import ContainerLab, forget_images
from rch.testing.lab_provision import program
from rch.testing.scenario import down_all

# Invoke's own decorator is untyped.
_task: Callable[..., Callable[[Callable[..., None]], Task[Any]]] = task


def _labs() -> list[EmbeddedLab | ContainerLab]:
    """The labs of this checkout that are up."""
    labs: list[EmbeddedLab | ContainerLab] = [EmbeddedLab(EMBEDDED_DIR), ContainerLab(CONTAINERS_DIR)]
    return [lab for lab in labs if lab.workers]


@_task(
    help={
        "containers": "number of podman workers; 0 (default) makes an embedded worker instead",
        "workers": "number of embedded workers",
        "cpus": "CPUs a container may use, for instance 1 or 0.5",
        "slots": "rch_slots of each worker, default the CPUs of this machine",
        "roles": "provision by the roles (--no-roles leaves bare machines)",
    }
)
def lab_up(
    _context: object,
    containers: int = 0,
    workers: int = 1,
    cpus: str = "",
    slots: int = 0,
    roles: bool = True,
) -> None:
    """Start workers on this machine and provision them; what is up stays as it is."""
    lab: EmbeddedLab | ContainerLab
    if containers:
        lab = ContainerLab(CONTAINERS_DIR, workers=containers, cpus=float(cpus) if cpus else None, slots=slots or None)
    else:
        lab = EmbeddedLab(EMBEDDED_DIR, workers=workers, slots=slots or None)
    with _one_line():
        recap = lab.up(with_roles=roles)
    for worker in lab.status():
        print(f"{worker['name']}  {worker['address']}  {'up' if worker['up'] else 'down'}")
    if recap is not None:
        print(f"ansible: {recap.shown()} ({recap.seconds:.0f} s)")
    print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in lab.environment().items()))


@_task(help={"images": "also remove the cached base image and packages of container workers"})
def lab_down(_context: object, images: bool = False) -> None:
    """Remove every trace of the labs of this checkout."""
    with _one_line():
        EmbeddedLab(EMBEDDED_DIR).down()
        ContainerLab(CONTAINERS_DIR).down()
        down_all()
        if images:
            forget_images()


@_task(help={"as_json": "one JSON array"}, auto_shortflags=False)
def lab_status(_context: object, as_json: bool = False) -> None:
    """Show the workers of the labs that are up."""
    rows = [row for lab in _labs() for row in lab.status()]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']}  {row['address']}  {'up' if row['up'] else 'down'}")
    if not rows:
        print("no lab is up: inv lab.up", file=sys.stderr)


@_task(
    help={
        "command": "the build to run, as typed in a shell without operators (default: cargo build)",
        "project": "directory to run it in (default: examples/workspace)",
        "worker": "the only worker that may run it",
        "require_remote": "fail with 103 instead of running here",
    },
    auto_shortflags=False,
)
def remote_build(
    _context: object,
    command: str = "cargo build",
    project: str = "examples/workspace",
    worker: str = "",
    require_remote: bool = False,
) -> None:
    """Run a build on a worker by ``rch exec``: of the lab if one is up, else of your inventory."""
    if not os.path.isdir(project):
        raise Exit(f"no such directory: {project}", code=2)
    words = ["exec"]
    if worker:
        words += ["--worker", worker]
    if require_remote:
        words += ["--require-remote"]
    environment = dict(os.environ)
    if "RCH_INVENTORY" not in environment:
        for lab in _labs():
            environment |= lab.environment()
    done = subprocess.run(
        [program("rch"), *words, "--", *shlex.split(command)], cwd=project, env=environment, check=False
    )
    if done.returncode:
        raise Exit(code=done.returncode)


_FLEET_HELP = {"limit": "workers, with commas between; default all", "inventory": "instead of your own"}


def _fleet(verb: str, limit: str, inventory: str) -> None:
    """``rch fleet VERB``, which is the one way; its exit status is the task's."""
    words = [word for name in limit.split(",") if name for word in ("--limit", name)]
    environment = {**os.environ, **({"RCH_INVENTORY": os.path.abspath(inventory)} if inventory else {})}
    done = subprocess.run([program("rch"), "fleet", verb, *words], env=environment, check=False)
    if done.returncode:
        raise Exit(code=done.returncode)


@_task(help=_FLEET_HELP)
def fleet_plan(_context: object, limit: str = "", inventory: str = "") -> None:
    """Show what site.yml would change on the workers; changes nothing."""
    _fleet("plan", limit, inventory)


@_task(help=_FLEET_HELP)
def fleet_apply(_context: object, limit: str = "", inventory: str = "") -> None:
    """Provision the workers and this machine; changes nothing the second time."""
    _fleet("apply", limit, inventory)


@_task(help=_FLEET_HELP)
def fleet_upgrade(_context: object, limit: str = "", inventory: str = "") -> None:
    """Bring this version to the workers, batch by batch."""
    _fleet("upgrade", limit, inventory)


@_task(help=_FLEET_HELP)
def fleet_gc(_context: object, limit: str = "", inventory: str = "") -> None:
    """Remove from the workers' caches what nobody needs any more."""
    _fleet("gc", limit, inventory)


class _one_line:  # noqa: N801  # reads as a statement
    """Errors of ours end a task with their one line and their status, without a traceback."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RchError):
            raise Exit(error.one_line(), code=error.exit_status) from error


namespace = Collection(remote_build)
namespace.add_collection(Collection("lab", up=lab_up, down=lab_down, status=lab_status))
namespace.add_collection(Collection("fleet", plan=fleet_plan, apply=fleet_apply, upgrade=fleet_upgrade, gc=fleet_gc))
