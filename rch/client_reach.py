"""The way to an rchd, one that this client starts included, for as long as the command is rchd's business."""

from __future__ import annotations

from time import monotonic, sleep

from rch import __version__
from rch import client_frames as wire
from rch.client_link import NoLink, can_connect, open_link, spool_places
from rch.client_paths import socket_path
from rch.client_relay import Ending
from rch.client_request import make_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rch.client_link import Link
    from rch.client_options import Choice, Options
    from rch.client_relay import Relay
    from rch.client_request import Caller

RETURN_S = 30.0
"""Seconds in which an rchd that died during a job may come back."""

_IN_VAIN = 5


class Reach:
    """One command's connections to rchd, one after the other."""

    def __init__(self, caller: Caller, options: Options, choice: Choice, state: str, run_dir: str) -> None:
        self._caller = caller
        self._options = options
        self._choice = choice
        self._state = state
        self._run_dir = run_dir
        self._socket = socket_path(run_dir)

    def converse(self, relay: Relay) -> tuple[Ending, Link | None]:
        """Reach rchd and relay until there is an ending; the link is left open for a run here. Raises NoLink."""
        link = self._reach(relay)
        again = True
        in_vain = 0
        while True:
            ending = relay.run(link)
            if ending.how == "local":
                return ending, link
            link.close()
            if ending.how != "lost":
                return ending, None
            if not relay.job:
                # rchd went away before a job was there. Once more; an order that ends rchd must not do so for ever.
                if not again:
                    raise NoLink("absent", "rchd ended while it looked at this command, twice")
                again = False
                link = self._reach(relay)
                continue
            # An rchd that answers, says nothing and leaves, again and again, is none.
            in_vain = 0 if relay.progress else in_vain + 1
            found = self._reach_again(relay) if in_vain < _IN_VAIN else None
            if found is None:
                return (Ending("signal", status=128 + relay.signalled) if relay.signalled else ending), None
            link = found

    def _reach(self, relay: Relay, attach: dict[str, object] | None = None) -> Link:
        """A link to a running rchd, or to one that this client may start. Raises NoLink."""
        request = wire.dumps(make_request(self._caller, self._options, self._choice, __version__, attach))
        places = spool_places(self._caller.variables, self._caller.cwd)
        try:
            return open_link(self._socket, self._run_dir, request, places)
        except NoLink as no:
            if no.why != "absent" or (relay.signalled and not relay.job):
                raise
            problem = self._start()
            if problem:
                raise NoLink("absent", f"{no}, and {problem}") from None
        return open_link(self._socket, self._run_dir, request, places)

    def _start(self) -> str:
        """Start rchd if this process may; "" or why there is none."""
        from rch import client_start

        if self._caller.variables.get("RCH_ON_WORKER"):
            return "a job starts none"
        confined = client_start.confinement(self._state)
        if confined:
            return f"{confined}, which may not start it"
        return client_start.start_daemon(
            self._state, self._run_dir, self._caller.variables, lambda: can_connect(self._socket)
        )

    def _reach_again(self, relay: Relay) -> Link | None:
        """The job's output goes on where it was, from an rchd that came back; None when none did in time."""
        until = monotonic() + RETURN_S
        pause = 0.05
        while monotonic() < until:  # after a signal too: who ends the job if not rchd? The prompt comes back before
            try:
                return self._reach(relay, {"job": relay.job, "offset": relay.offset})
            except NoLink:
                sleep(pause)
                pause = min(0.5, pause * 1.5)
        return None
