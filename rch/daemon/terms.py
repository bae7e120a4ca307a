"""The terms of one command: what its order, its kind and the configuration say together about how it runs."""

from __future__ import annotations

from collections.abc import Mapping

from rch.config import Config
from rch.daemon.pool import Member
from rch.errors import Refused
from rch.execute.executor import BulkSettings
from rch.intercept.decision import Kind, Products
from rch.order import Order
from rch.project.model import Project
from rch.schedule.choose import Wanted
from rch.toolchains import FREE_COMMAND, cores_wanted, rust_targets
from rch.transfer import BuildDir, compression_level

SLOTS_BY_DEFAULT = 4
"""Slots of a build that names no -j; more rarely helps an incremental build and starves the next agent."""


def wanted_of(order: Order, kind: Kind, project: Project, config: Config, cpus: int) -> Wanted:
    """What the command asks of a worker."""
    asked, cores = cores_wanted(order.words, kind), config.execution.cores
    if kind.name == FREE_COMMAND.name:
        slots = cores or 1
    elif asked and cores:
        slots = min(asked, cores)
    else:
        slots = asked or cores or min(SLOTS_BY_DEFAULT, max(1, cpus))
    allowed = [frozenset(names) for names in config.allowed]
    switches = config.switches
    if switches.worker:
        allowed.append(frozenset({switches.worker}))
    if switches.workers:
        allowed.append(frozenset(switches.workers))
    tag = order.options.tag or switches.tag or ""
    return Wanted(
        slots=slots,
        tools=project.tools,
        rust_targets=rust_targets(order.words, kind),
        pinned=order.options.worker,
        allowed=tuple(allowed),
        blocked=frozenset(config.workers.blocked),
        preferred=frozenset(config.workers.preferred),
        tags=tuple(part.strip() for part in tag.split(",") if part.strip()),
        min_speed_score=float(config.workers.min_speed_score),
        returns_files=kind.products is Products.FILES,
    )


def says_more(order: Order, config: Config) -> bool:
    """``-v``, RCH_VERBOSE or ``general.verbose``; ``-q`` beats them all."""
    return order.options.verbose or (config.general.verbose and not order.options.quiet)


def overridden(order: Order, config: Config) -> str:
    """Keys of the files that a named worker beats (coverage A-9), for a caller that wants to know; "" for none."""
    keys = {
        "workers.allowed": config.allowed,
        "workers.blocked": config.workers.blocked,
        "workers.preferred": config.workers.preferred,
        "workers.min_speed_score": config.workers.min_speed_score,
    }
    return ", ".join(name for name, value in keys.items() if value) if order.options.worker else ""


def check_scan(config: Config) -> None:
    """Raise Refused where a scan is asked for that there is not yet: then nothing leaves (coverage E-6)."""
    if config.transfer.secret_scan:
        raise Refused(
            "transfer.secret_scan is on and this version cannot scan, so nothing is sent",
            hint="rch config set transfer.secret_scan false",
        )


NO_INPUT = frozenset(
    {
        "cargo.build",
        "cargo.check",
        "cargo.clippy",
        "cargo.doc",
        "cargo.rustc",
        "cc.compile",
        "cc.check",
        "go.build",
        "rustc",
    }
)
"""Kinds that never read their input: `while read x; do cargo build; done <list` keeps its list."""


def wants_stdin(order: Order, kind: Kind) -> bool:
    """Is the caller's stdin forwarded? A pipe, file or socket is, a terminal only with -i."""
    nature = order.fds["0"]
    if kind.name in NO_INPUT:
        return False
    return nature in ("pipe", "file") or (nature == "tty" and order.options.interactive)


def network_of(order: Order, config: Config) -> str:
    """A caller without network never gets one (lessons EX-10); one that came through the spool counts as such."""
    return "none" if order.offline or config.execution.network == "none" else "host"


def build_dir_policy(config: Config, kind: Kind) -> BuildDir:
    """``artifacts.build_dir`` with "auto" resolved (design.md 6.4)."""
    if config.artifacts.build_dir != "auto":
        return BuildDir(config.artifacts.build_dir)
    return BuildDir.FULL if kind.products is Products.FILES else BuildDir.NONE


def memory_limit(member: Member, config: Config) -> int | None:
    """A ceiling that is never tighter than the machine itself (``execution.resource_limits``)."""
    total = member.worker.observed.facts.get("memory_bytes")
    return total if config.execution.resource_limits and type(total) is int and total > 0 else None


def bulk_settings(config: Config, member: Member) -> BulkSettings:
    """Levels and patience of rsync for this command (coverage A-18; RCH_COMPRESSION beats both keys)."""
    loopback = member.worker.declared.host in ("localhost", "::1") or member.worker.declared.host.startswith("127.")
    forced = config.switches.compression
    speed = member.worker.observed.facts.get("speed")
    score = speed.get("cpu_score") if isinstance(speed, Mapping) else None
    worker_score = float(score) if isinstance(score, (int, float)) else None  # the sender's; this machine has none yet

    def level(setting: int | str, direction: str) -> int:
        return compression_level(
            forced if forced is not None else setting,
            direction=direction,
            mbit_s=member.executor.link_mbit_s(),
            cpu_score=worker_score if direction == "return" else None,
            loopback=loopback,
        )

    return BulkSettings(
        no_progress_s=config.transfer.timeout_sec,
        push_level=level(config.transfer.compression_level, "push"),
        return_level=level(config.artifacts.compression_level, "return"),
    )
