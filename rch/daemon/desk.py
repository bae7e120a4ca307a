"""Where orders arrive: what the story in rch/offload.py asks of the daemon, by the names it has there.

Each step is one module's: deciding, projects, leases, pushing, delivering, portability, local_runs; the jobs under
way are in underway.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import structlog

from rch.config import Config, load_config
from rch.config.places import Places
from rch.config.switches import DAEMON_NAMES
from rch.daemon import deciding, job_input
from rch.daemon import places as rooms
from rch.daemon.adoption import adopt_unfinished
from rch.daemon.delivering import Deliveries
from rch.daemon.dry_run import offload_line
from rch.daemon.joblog import JobLog
from rch.daemon.leases import Lease, Leases, code_of
from rch.daemon.local_runs import LocalRuns
from rch.daemon.modes import Modes
from rch.daemon.peer import Peer
from rch.daemon.pool import Member, Pool
from rch.daemon.portability import Portability, RedThere
from rch.daemon.probe import probe
from rch.daemon.projects import Projects
from rch.daemon.pushing import Pusher
from rch.daemon.root_locks import RootLocks
from rch.daemon.running import Running
from rch.daemon.session import Session
from rch.daemon.store import Job, Store
from rch.daemon.underway import Underway, join
from rch.daemon.wire import Frame, Transport
from rch.errors import Fault, JobLost, NotOffloadable, RchError, UsageError
from rch.intercept.decision import Kind, Segment
from rch.offload import offload, see_through, tell
from rch.order import Order, parse_order
from rch.project.model import Project, Root
from rch.transfer import Returned

_log = structlog.get_logger("desk")

D_VARIABLES = tuple(name for name in DAEMON_NAMES if name != "RCH_STATE_DIR")
"""Read once by rchd; a caller with other values is told (coverage A-11)."""

ADOPT_S = 30.0
"""An order waits at most this long for a new rchd to find the jobs of the last one."""


class Desk:
    """All orders of one rchd."""

    def __init__(self, places: Places, store: Store, pool: Pool) -> None:
        client = rooms.client_id(places)
        self._places = places
        self._store = store
        self._pool = pool
        self._client = client
        self._modes = Modes(places.state, client)
        self._locks = RootLocks()
        self._projects = Projects(places, client, self._locks)
        self._portability = Portability(store)
        self._leases = Leases(places.state, pool, store, self._modes, self._portability)
        self._underway = Underway(store, pool)
        self._pusher = Pusher(places, store, client, self._projects, self._underway)
        self._deliveries = Deliveries(places, store, pool, self._underway, self._locks)
        self._local_runs = LocalRuns(store, self._portability)
        self._started_with = {name: os.environ.get(name, "") for name in D_VARIABLES}
        self._stopping = False
        self._adopted = threading.Event()

    # -- arrival ------------------------------------------------------------------------------------------------

    def serve(self, transport: Transport, request: Mapping[str, Any], peer: Peer) -> None:
        """One caller, from its request to its last frame. Runs in a thread of its own."""
        caller = Session(transport)
        try:
            order = parse_order(request, confined=peer.confined, offline=peer.offline)
            self._compare(order, caller)
            self._adopted.wait(ADOPT_S)  # until then a job that is under way is not known
            if order.attach_job:
                self._attach(order, caller)
            else:
                offload(order, caller, self)
        except RchError as error:
            caller.say(Frame.ERROR, status=error.exit_status, line=error.one_line())
        except Exception as error:  # noqa: BLE001  the outer edge: no traceback reaches a user, the log has it
            _log.exception("order failed")
            caller.say(
                Frame.ERROR, status=1, line=f"rch: error[Internal] {type(error).__name__}; next: rch daemon logs"
            )
        finally:
            caller.close()

    def _compare(self, order: Order, caller: Session) -> None:
        for name, ours in self._started_with.items():
            theirs = order.env.get(name, "")
            if theirs != ours:
                shown = f"{name} is {theirs or 'unset'} here, rchd runs with {ours or 'none'}"
                caller.note(f"[rch] {shown}; next: rch daemon restart")

    def _attach(self, order: Order, caller: Session) -> None:
        """A caller comes back to its job, after rchd or its connection had gone."""
        running = self._underway.get(order.attach_job)
        if running is None:
            job = self._store.job(order.attach_job)
            if job is None:
                raise UsageError(f"no job {order.attach_job} is known here", what=order.attach_job)
            raise JobLost(f"job {job.id} has already been settled ({job.state})", job=job.id, hint=f"rch logs {job.id}")
        config = self.config_for(order)
        for root in running.roots:
            caller.prove(root.path)
        join(running, caller)
        job_input.resume(running, order, caller)
        with self._locks.hold(running.roots):
            ending = see_through(running, order, caller, self, config)
        if ending is None:
            return
        if isinstance(ending, NotOffloadable):
            self.run_here(ending, running.kind, order, caller, config)
        else:
            tell(ending, caller, self, config)

    # -- decide -------------------------------------------------------------------------------------------------

    def config_for(self, order: Order) -> Config:
        """The configuration of the order's directory and environment."""
        return load_config(order.cwd, order.env, state_dir=self._places.state)

    def decide(self, order: Order, config: Config) -> Segment:
        """Offload or local, and as what kind."""
        if self._stopping:
            raise NotOffloadable("rchd is stopping", code="no-daemon")
        return deciding.decide(order, config)

    def understood(self, order: Order, segment: Segment) -> Order:
        """The order with the build's own words and what the job runs."""
        return deciding.understood(order, segment)

    def check_here(self, order: Order, kind: Kind, caller: Session, config: Config) -> None:
        """``execution.preflight_check``: NotOffloadable where `cargo check` fails here."""
        deciding.check_here(order, kind, caller, config)

    def must_be_remote(self, order: Order, config: Config | None) -> bool:
        """One policy for all paths (lessons HB-06)."""
        if order.options.must_be_remote:
            return True
        if config is None:
            try:
                config = self.config_for(order)
            except RchError:
                return False
        return not config.execution.fallback_to_local

    # -- project, schedule, push, run ---------------------------------------------------------------------------

    def hold_roots(
        self, order: Order, kind: Kind, config: Config
    ) -> contextlib.AbstractContextManager[tuple[Root, ...]]:
        """One returning job per root, from push to placement."""
        return self._projects.hold_roots(order, kind, config)

    def project(self, order: Order, kind: Kind, config: Config) -> Project:
        """Roots, manifests, tools and environment of the command, as they are now."""
        return self._projects.project(order, kind, config)

    def returning_requester(self, project: Project, order: Order, kind: Kind, caller: Session) -> Running | None:
        """The job of an identical command that nobody has taken home, now this caller's."""
        running = self._underway.requester_returns(project, order, kind, caller)
        if running is not None:
            caller.say(Frame.ACCEPTED, job=running.job.id, worker=running.name, kind=kind.name)
        return running

    def lease(
        self, order: Order, kind: Kind, project: Project, config: Config, tried: Mapping[str, tuple[str, str]]
    ) -> Lease:
        """The first admissible worker that answers, or NotOffloadable with each worker's reason."""
        return self._leases.lease(order, kind, project, config, tried)

    def dry_run_text(self, order: Order, segment: Segment, project: Project, lease: Lease) -> str:
        """What `--dry-run` prints (coverage B-8)."""
        return offload_line(order, segment, project, lease)

    def push_and_start(
        self, lease: Lease, order: Order, kind: Kind, project: Project, caller: Session, config: Config
    ) -> Running:
        """Everything between the lease and the first line of output. A fault leaves nothing held there."""
        return self._pusher.push_and_start(lease, order, kind, project, caller, config)

    def fault(self, member: Member, fault: Fault) -> None:
        """A fault before the start; the next worker is tried."""
        self._leases.fault(member, fault)

    def code_of(self, error: RchError) -> str:
        """The reason code that a fault means when the command runs here because of it."""
        return code_of(error)

    def hold_back(self, running: Running, order: Order, config: Config) -> bool:
        """Keep the output until the end is known?"""
        return self._portability.hold_back(running, order, config)

    def relay_log(self, running: Running, order: Order, caller: Session, *, until_end_only: bool) -> bool:
        """The log to this caller, from its offset, until the job has ended; False when the caller has gone.

        until_end_only: wait for the end and send nothing.
        """
        offset = order.attach_offset
        while not (caller.gone or (caller.cancelled and running.ended.is_set())):
            if until_end_only:
                if running.ended.wait(0.5):
                    break
                continue
            data = running.log.read(offset, wait_s=1.0)
            if data:
                offset += len(data)
                caller.log(offset, data)
            elif running.ended.is_set() and offset >= running.log.size:
                break
            elif running.log.ended:
                running.ended.wait(0.5)  # the log is whole, the result is being written down
        return not caller.gone

    # -- return, or here ----------------------------------------------------------------------------------------

    def repeat_red_here(self, running: Running, order: Order) -> bool:
        """Is this red result one that has to be repeated here?"""
        return self._portability.repeat_red_here(running, order)

    def red_there(self, running: Running) -> NotOffloadable:
        """The reason of that repetition; carries what has to be remembered if it is green here."""
        return RedThere(running)

    def deliver(self, running: Running, config: Config) -> list[Returned]:
        """Bring every root home, once; later callers get the same answer."""
        return self._deliveries.deliver(running, config)

    def finished(self, running: Running, returned: list[Returned], when: float) -> None:
        """All is in place: record it."""
        self._deliveries.finished(running, returned, when)

    def undelivered(self, running: Running, error: RchError) -> None:
        """The products did not arrive; the job stays there for ``rch fetch``."""
        self._deliveries.undelivered(running, error)

    def clean_up(self, running: Running, config: Config) -> None:
        """``artifacts.cleanup_remote``: after a verified return nothing of the project stays there."""
        self._deliveries.clean_up(running, config)

    def settle(self, job_id: str, caller: Session) -> None:
        """After the caller has its status: collect the job, once nobody waits for it."""
        self._underway.settle(job_id, caller)

    def give_up(self, running: Running) -> None:
        """Nobody wants this job's products: end it there and forget it."""
        self._underway.give_up(running)

    def run_here(
        self, reason: NotOffloadable, kind: Kind | None, order: Order, caller: Session, config: Config | None
    ) -> None:
        """Grant the caller the run of its own command, and remember how it ended."""
        if config is None:
            with contextlib.suppress(RchError):
                config = self.config_for(order)
        self._local_runs.grant(reason, kind, order, caller, config)

    # -- management ---------------------------------------------------------------------------------------------

    def adopt_unfinished(self) -> None:
        """After a restart: find every job that was under way, and follow it again; orders wait for that."""
        try:
            adopt_unfinished(self._places, self._store, self._pool, self._underway)
        finally:
            self._adopted.set()

    def running(self) -> list[str]:
        """Ids of the jobs under way."""
        return self._underway.ids()

    def log_of(self, job_id: str) -> JobLog | None:
        """The log of a job under way."""
        return self._underway.log_of(job_id)

    def signal(self, job: Job, name: str) -> None:
        """`rch cancel` and friends."""
        self._underway.signal(job, name)

    def fetch(self, job: Job) -> Job:
        """`rch fetch`: complete the return of an undelivered job while its directory lives."""
        return self._deliveries.fetch(job)

    def forget_unportable(self) -> int:
        """Every project is tried on every class of worker again; how many marks there were."""
        return self._portability.forget()

    def probe(self, member: Member) -> dict[str, Any]:
        """Both planes on connections of their own."""
        return probe(member, self._places, self._client)

    def stop(self) -> None:
        """No new orders; jobs go on under their supervisors."""
        self._stopping = True
        self._modes.close()
