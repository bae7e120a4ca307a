"""The story of one command, from the caller's words to the products in place.

decide -> project -> schedule -> push -> run -> return. Each step is a function named so; what can go wrong is an
exception of rch/errors.py, and there are three ways out: the command's own exit status, the run here with a reason,
or an error that says which promise could not be kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rch.daemon.dry_run import local_line
from rch.daemon.running import Running, exit_status
from rch.daemon.wire import Frame
from rch.errors import (
    ConfigError,
    DiskFull,
    Fault,
    JobLost,
    NotOffloadable,
    ProductsUnverified,
    RchError,
    ToolMissing,
)
from rch.intercept.decision import Kind, Segment, Verdict
from rch.order import Order
from rch.project.model import Project

if TYPE_CHECKING:
    from rch.daemon.desk import Desk
    from rch.daemon.session import Session

SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "PIPE": 13, "TERM": 15}
"""What a caller may have been ended by, as its shell will tell it."""

MORE_WORKERS = 2
"""A fault before the start tries up to two more workers (lessons SQ-06)."""


@dataclass(frozen=True)
class Ending:
    """How it ended for the caller.

    status: what the caller exits with. run_locally: the caller runs the command itself now, with this reason.
    """

    status: int
    job: str = ""
    signal: int | None = None
    products: str = "none"
    message: str = ""
    run_locally: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def offload(order: Order, caller: Session, desk: Desk) -> None:
    """Carry out one order and tell the caller. Every RchError ends here as a line, a local run, or a status."""
    kind: Kind | None = None
    try:
        config = desk.config_for(order)
        if notice := config.untrusted_notice():
            caller.note(f"[rch] {notice}")
        segment = desk.decide(order, config)
        kind = segment.kind
        if segment.verdict is Verdict.LOCAL or kind is None:
            raise NotOffloadable(segment.detail or segment.reason, code=segment.reason)
        order = desk.understood(order, segment)
        desk.check_here(order, kind, caller, config)
        with desk.hold_roots(order, kind, config) as roots:
            for root in roots:
                caller.prove(root.path)
            project = desk.project(order, kind, config)
            caller.require_proved(project)
            running = desk.returning_requester(project, order, kind, caller) or start(
                order, kind, project, segment, caller, desk, config
            )
            ending = see_through(running, order, caller, desk, config)
        if isinstance(ending, Ending):
            tell(ending, caller, desk, config)
            return
        stay(ending, kind, order, caller, desk, config)
    except NotOffloadable as reason:
        stay(reason, kind, order, caller, desk, None)
    except ConfigError as error:
        if order.options.must_be_remote:  # a mistake to be mended, not a worker to be waited for (coverage A-5)
            caller.say(Frame.ERROR, status=error.exit_status, line=error.one_line())
            return
        stay(NotOffloadable(error.message, code=error.code, hint=error.hint), kind, order, caller, desk, None)
    except Fault as fault:
        stay(NotOffloadable(fault.message, code=desk.code_of(fault), hint=fault.hint), kind, order, caller, desk, None)
    except RchError as error:
        caller.say(Frame.ERROR, status=error.exit_status, line=error.one_line())


def start(
    order: Order, kind: Kind, project: Project, segment: Segment, caller: Session, desk: Desk, config: Any
) -> Running:
    """schedule, push, run: the job of *order* on the first worker that takes it."""
    tried: dict[str, tuple[str, str]] = {}
    while True:
        lease = desk.lease(order, kind, project, config, tried)
        if order.options.dry_run:
            raise NotOffloadable(desk.dry_run_text(order, segment, project, lease), code="dry-run")
        try:
            return desk.push_and_start(lease, order, kind, project, caller, config)
        except (NotOffloadable, ConfigError):
            raise
        except Fault as fault:
            desk.fault(lease.member, fault)
            tried[lease.member.worker.name] = (desk.code_of(fault), fault.message)
            if isinstance(fault, DiskFull) and fault.host == "here":
                raise
            if len(tried) > MORE_WORKERS or order.options.worker:
                raise


def see_through(
    running: Running, order: Order, caller: Session, desk: Desk, config: Any
) -> Ending | NotOffloadable | None:
    """run and return, as this caller sees it: the log, then the products, then the status.

    Answers a NotOffloadable when the command has to run here after all, None when the caller went away.
    """
    job = running.job
    held_back = desk.hold_back(running, order, config)
    if not desk.relay_log(running, order, caller, until_end_only=held_back):
        running.leave(caller)
        return None
    if caller.cancelled:
        desk.give_up(running)
        return Ending(128 + SIGNALS.get(caller.cancelled, 15), job=job.id)
    if running.rc is None:
        return after_loss(running, order, desk)
    if running.rc.get("reason") == "killed" and running.rc.get("message") and not running.cancel_sent:
        # Nobody here wanted its end: its log found no room, or somebody there killed it. Its output is not whole.
        text = f"{running.name}: {' '.join(str(running.rc['message'])[:200].split())}"
        running.fault = JobLost(text, host=running.name, job=job.id)
        return after_loss(running, order, desk)
    if running.rc.get("reason") == "setup":
        desk.give_up(running)
        text = f"{running.name}: {order.run[0]}: {running.rc.get('message') or 'the sandbox could not be set up'}"
        code = running.rc.get("code")
        if code in (126, 127) and order.options.must_be_remote:  # what a shell there would have said
            return Ending(code, job=job.id, message=ToolMissing(text).one_line())
        return NotOffloadable(text, code="capability-missing")
    if running.rc.get("reason") == "oom" and running.kind.repeatable and not order.options.must_be_remote:
        desk.give_up(running)
        return NotOffloadable(f"{running.name} ran out of memory", code="oom")
    if desk.repeat_red_here(running, order):
        desk.give_up(running)
        return desk.red_there(running)
    ending = bring_home(running, desk, config)
    if held_back and isinstance(ending, Ending):
        desk.relay_log(running, order, caller, until_end_only=False)
    return ending


def after_loss(running: Running, order: Order, desk: Desk) -> Ending | NotOffloadable:
    """The job has no result: here if its kind may be repeated, else the truth."""
    fault = running.fault or JobLost(f"{running.name}: the job is lost", host=running.name, job=running.job.id)
    desk.give_up(running)
    if running.kind.repeatable and not order.options.must_be_remote:
        return NotOffloadable(fault.message, code="lost", hint=fault.hint)
    line = f"{fault.message}; {running.kind.name} is not repeated by itself"
    status = NotOffloadable.exit_status
    return Ending(status, job=running.job.id, message=JobLost(line, hint=f"rch logs {running.job.id}").one_line())


def bring_home(running: Running, desk: Desk, config: Any) -> Ending | NotOffloadable:
    """return: what the job changed lies here, verified, or the status is not 0."""
    job = running.job
    assert running.rc is not None
    own = exit_status(running.rc)
    try:
        returned = desk.deliver(running, config)
    except (ProductsUnverified, Fault) as error:
        desk.undelivered(running, error)
        status = own or ProductsUnverified.exit_status
        hint = f"rch fetch {job.id}"
        line = f"rch: error[{error.label}] {error.message}; the products are not in place; next: {hint}"
        return Ending(status, job=job.id, products="undelivered", message=" ".join(line.split()))
    if any(r.repair_locally for r in returned):
        paths = ", ".join(c.path for r in returned for c in r.conflicts[:3])
        return NotOffloadable(f"the build directory changed here meanwhile ({paths})", code="build-dir-conflict")
    kept = [c.path for r in returned for c in r.conflicts]
    message = ""
    if kept:
        shown = ", ".join(kept[:5]) + (f" and {len(kept) - 5} more" if len(kept) > 5 else "")
        message = f"[rch] kept your version of {shown}: changed here while the command ran on {running.name}"
    desk.finished(running, returned, time.time())
    desk.clean_up(running, config)
    return Ending(
        own,
        job=job.id,
        signal=running.rc.get("signal"),
        products="verified",
        message=message,
        run_locally="then-here" if running.kind.run_locally_after and own == 0 else "",
    )


def tell(ending: Ending, caller: Session, desk: Desk, config: Any) -> None:
    """The last word to a caller whose command ran on a worker."""
    caller.say(
        Frame.EXIT,
        status=ending.status,
        signal=ending.signal,
        job=ending.job,
        products=ending.products,
        message=ending.message,
        post_compile=config.hooks.post_compile,
        run_locally=ending.run_locally,
    )
    desk.settle(ending.job, caller)


def stay(
    reason: NotOffloadable | None, kind: Kind | None, order: Order, caller: Session, desk: Desk, config: Any
) -> None:
    """local: grant the caller the run of its own command, with one reason, unless a promise forbids it."""
    if reason is None or caller.gone:
        return
    required = desk.must_be_remote(order, config)
    if order.options.dry_run:
        line = reason.message if reason.code == "dry-run" else local_line(order, kind, reason)
        failed = required and reason.code != "dry-run"
        caller.say(Frame.ERROR, status=NotOffloadable.exit_status if failed else 0, line=line)
        return
    if required:
        caller.say(Frame.ERROR, status=NotOffloadable.exit_status, line=reason.one_line())
        return
    desk.run_here(reason, kind, order, caller, config)
