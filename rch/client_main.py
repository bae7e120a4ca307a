"""One ``rch exec`` from its words to its exit status: ask rchd, relay, or run the command here."""

from __future__ import annotations

import os
import sys
from time import monotonic

from rch import client_frames as wire
from rch.client_end import end_by, fail, tell, write_all
from rch.client_options import USAGE, UsageError, choose, parse
from rch.client_paths import BadPlace, path_without_shims, run_dir, socket_path, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rch.client_link import Link
    from rch.client_options import Choice, Options
    from rch.client_relay import Ending, Relay
    from rch.client_request import Caller
else:
    import _signal as signal

_USAGE, _UNDELIVERED, _NOT_POSSIBLE = 2, 102, 103
_C_FAMILY = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cpp")


def main(words: Sequence[str]) -> int:
    """Run ``rch exec`` with *words*; the exit status. Ends the process itself where a signal has to end it."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no KeyboardInterrupt, wherever we are
    try:
        options = parse(words)
    except UsageError as error:
        return fail(_USAGE, "UsageError", str(error), "rch exec --help")
    if options.help:
        write_all(1, USAGE.encode("ascii"))
        return 0
    from rch.client_request import Caller

    caller = Caller()
    choice = choose(options, caller.variables)
    if choice.how == "refuse":
        label = "ConfigError" if choice.code == "bad-environment" else "UsageError"
        return fail(_USAGE, label, choice.line)
    if choice.how == "exec":
        return _exec(options, choice, caller)
    return Exec(options, choice, caller).run()


class Exec:
    """One command that is either rchd's business or runs here under local slots."""

    def __init__(self, options: Options, choice: Choice, caller: Caller) -> None:
        self.options = options
        self.choice = choice
        self.caller = caller
        self.state = ""
        self.run_dir = ""
        self.where = "here"
        self.job = ""
        self.reason = ""

    def run(self) -> int:
        """The exit status."""
        status = self._run()
        if self.options.json:
            end = {"job": self.job, "where": self.where, "reason": self.reason, "status": abs(status)}
            write_all(2, wire.dumps(end if status >= 0 else {**end, "status": 128 - status, "signal": -status}) + b"\n")
        if status < 0:
            end_by(-status)
        return status

    def _run(self) -> int:
        try:
            self.state = state_dir(self.caller.variables)
            self.run_dir = run_dir(self.caller.variables)
            socket_path(self.run_dir)  # one that no address can hold is the user's to mend, also for a run here
        except BadPlace as error:
            if self.choice.demand:
                return fail(_USAGE, "ConfigError", str(error))
            return self.stay("bad-environment", str(error), hint="unset RCH_STATE_DIR")
        if self.choice.how == "local":
            return self.stay(self.choice.code, self.choice.line)
        for note in self.choice.notes:
            if not self.choice.quiet:
                tell(f"[rch] {note}")
        return self._ask()

    # -- with rchd ------------------------------------------------------------------------------------------------

    def _ask(self) -> int:
        from rch.client_link import NoLink
        from rch.client_reach import Reach
        from rch.client_relay import Relay

        plain = self.options.output == "all" and not self.options.show_worker
        relay = Relay(
            self.caller,
            interactive=self.options.interactive,
            quiet=self.choice.quiet,
            filters=None if plain else self._filters,
            on_hook=self._on_hook,
        )
        relay.watch()
        try:
            reach = Reach(self.caller, self.options, self.choice, self.state, self.run_dir)
            ending, link = reach.converse(relay)
        except NoLink as no:
            ending, link = None, None
            why, hint = str(no), "rch daemon restart" if no.why == "hung" else "rch daemon start"
        finally:
            relay.unwatch()
        self.job = relay.job
        if ending is None:
            return self.stay("no-daemon", why, hint=hint)
        return self._finish(ending, relay, link)

    def _filters(self, worker: str) -> dict[int, Any]:
        from rch.client_output import LineFilter

        name = worker if self.options.show_worker else ""
        return {fd: LineFilter(self.options.output, name) for fd in (1, 2)}

    def _on_hook(self, fields: dict[str, Any]) -> dict[str, object]:
        status, problem = self._hook(str(fields.get("command", "")), str(fields.get("cwd") or self.caller.cwd))
        return {"status": status, "problem": problem}

    def _hook(self, command: str, cwd: str, extra: Mapping[bytes, bytes] | None = None) -> tuple[int, str]:
        from rch.client_local import run_hook

        return run_hook(command, cwd, {**self.local_environment(), **(extra or {})})

    # -- endings --------------------------------------------------------------------------------------------------

    def _finish(self, ending: Ending, relay: Relay, link: Link | None) -> int:
        fields = ending.fields
        if relay.signalled and (ending.how == "local" or fields.get("run_locally")):
            # Who has cancelled does not want it here either; and the prompt may be back already.
            if link is not None:
                link.say(wire.LOCAL_DONE, {"status": 128 + relay.signalled, "duration_ms": 0})
                link.drain(0.2)
            return -relay.signalled
        if ending.how == "exit":
            self.where = relay.worker
            return self._finish_exit(fields, relay)
        if ending.how == "local":
            return self._finish_local(fields, relay, link)
        if ending.how == "error":
            return self._finish_error(fields, relay)
        if ending.how == "signal":
            return -(ending.status - 128)
        if ending.how == "output":
            from rch.client_end import die_of_output

            return die_of_output(fields)
        from rch.client_reach import RETURN_S

        self.reason = "lost"
        job = f"job {relay.job} on {relay.worker or 'its worker'} may go on"
        return fail(
            _UNDELIVERED,
            "JobLost",
            f"rchd is gone and did not come back within {RETURN_S:g} s; {job}, its products are not in place",
            f"rch daemon start, then rch attach {relay.job} or rch fetch {relay.job}",
        )

    def _finish_exit(self, fields: dict[str, Any], relay: Relay) -> int:
        status = _status_of(fields)
        message = fields.get("message")
        if message and (not self.choice.quiet or str(message).startswith("rch: error")):
            tell(message)
        post_compile = fields.get("post_compile")
        if post_compile and self.job and not relay.signalled:
            extra = {b"RCH_EXIT_STATUS": str(status if status >= 0 else 128 - status).encode("ascii")}
            self._one_hook("post_compile", post_compile, self._root(relay), extra)
        relay.stdin.settle(fields.get("stdin_used"))
        if fields.get("run_locally"):
            stdin = relay.stdin.replay()
            if stdin is None:
                return fail(status or 1, "NotOffloadable", "the command has to run here too, but its stdin is used up")
            return self._child(0, {}, stdin=stdin)
        interrupted = relay.signalled == signal.SIGINT and status == 128 + signal.SIGINT
        return -signal.SIGINT if interrupted else status

    def _finish_local(self, fields: dict[str, Any], relay: Relay, link: Link | None) -> int:
        stdin = relay.stdin.replay()
        code, reason = str(fields.get("code") or "local"), str(fields.get("reason") or "")
        if stdin is None:
            message = f"{reason} ({code}), and it cannot be repeated here: more of its stdin was read than is kept"
            return fail(_NOT_POSSIBLE, "NotOffloadable", message)
        slots = fields.get("slots")
        env = fields.get("env")
        hooks = fields.get("hooks")
        hook = hooks.get("on_fallback") if isinstance(hooks, dict) else ""
        return self.stay(
            code,
            reason,
            hint=str(fields.get("hint") or ""),
            slots=slots if type(slots) is int and slots >= 0 else None,
            env={str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {},
            on_fallback=(str(hook), self._root(relay)) if hook else None,
            quiet=fields.get("quiet") is True,
            link=link,
            stdin=stdin,
            logged=True,
        )

    def _finish_error(self, fields: dict[str, Any], relay: Relay) -> int:
        status = _status_of(fields)
        tell(fields.get("line") or "rch: error[Fault] rchd refused the command without a reason; next: rch daemon logs")
        if self.choice.dry_run == "first" and status == 0:
            return self._after_dry_run(relay)
        return status

    def _after_dry_run(self, relay: Relay | None) -> int:
        """RCH_DRY_RUN has printed; then the command runs here, unless it must not."""
        if self.choice.demand:
            return _NOT_POSSIBLE
        from rch.client_local import wanted_slots

        return self._child(wanted_slots(self.options.argv), {}, stdin=(relay and relay.stdin.replay()) or 0)

    def _root(self, relay: Relay) -> str:
        """The root that the caller stands in, as far as rchd asked for it."""
        cwd = self.caller.cwd
        inside = [r for r in relay.proofs.roots if cwd == r or cwd.startswith(r.rstrip("/") + "/")]
        return max(inside, key=len, default=cwd)

    # -- here -----------------------------------------------------------------------------------------------------

    def stay(
        self,
        code: str,
        reason: str,
        *,
        hint: str = "",
        slots: int | None = None,
        env: Mapping[str, str] | None = None,
        on_fallback: tuple[str, str] | None = None,
        quiet: bool = False,
        link: Link | None = None,
        stdin: int = 0,
        logged: bool = False,
    ) -> int:
        """Run the command here and say why, once; or refuse, where a local run is no answer."""
        from rch.client_local import record_event, wanted_slots

        self.reason = code
        text = f"{wire.printable(code)}: {wire.printable(reason)}"
        fix = f". Fix: {wire.printable(hint)}" if hint else ""
        if not logged and self.state:
            record_event(self.state, self._event(code, reason))
        if self.choice.dry_run:
            tell(f"[rch] dry run: local: {text}{fix}")
            if self.choice.dry_run == "only":
                return 0
            return self._after_dry_run(None)
        if self.choice.demand:
            return fail(_NOT_POSSIBLE, "NotOffloadable", f"{text} ({self.choice.demand} forbids a run here)", hint)
        if not (quiet or self.choice.quiet or _is_plain_compiler(self.options.argv[0])):
            tell(f"[rch] local: {text}{fix}")
        if on_fallback is not None:
            self._one_hook("on_fallback", *on_fallback)
        wanted = wanted_slots(self.options.argv) if slots is None else slots
        return self._child(wanted, env or {}, link=link, stdin=stdin)

    def _child(self, wanted: int, env: Mapping[str, str], *, link: Link | None = None, stdin: int = 0) -> int:
        from rch.client_local import Interrupted, Slots, run_child

        slots = Slots()
        try:
            if self.state:
                slots.take(self.state, wanted, self._waiting)
        except Interrupted as stop:
            if link is not None:
                link.say(wire.LOCAL_DONE, {"status": 128 + stop.number, "duration_ms": 0})
                link.drain(0.2)
            return -stop.number
        begun = monotonic()

        def started() -> None:
            if link is not None:
                link.send(wire.LOCAL_STARTED)

        environ = self.local_environment()
        environ.update((wire.raw(name), wire.raw(value)) for name, value in env.items())
        status = run_child(self.options.argv, environ, started, stdin)
        slots.release()
        if link is not None:
            shown = status if status >= 0 else 128 - status
            link.say(wire.LOCAL_DONE, {"status": shown, "duration_ms": int((monotonic() - begun) * 1000)})
            link.drain(0.2)
        return status

    def local_environment(self) -> dict[bytes, bytes]:
        """The caller's, with a PATH that holds no shims: what the command starts must not come back to us."""
        environ = dict(self.caller.environ)
        path = environ.get(b"PATH")
        if path:
            environ[b"PATH"] = os.fsencode(path_without_shims(os.fsdecode(path)))
        return environ

    def _waiting(self, wanted: int, total: int) -> None:
        if self.caller.fds["2"] == "tty" and not self.choice.quiet:
            tell(f"[rch] local: waiting for {wanted} of {total} CPUs here; Ctrl-C gives up")

    def _one_hook(self, name: str, command: object, cwd: str, extra: Mapping[bytes, bytes] | None = None) -> None:
        from rch.client_local import Interrupted

        try:
            _status, problem = self._hook(str(command), cwd, extra)
        except Interrupted as stop:
            end_by(stop.number)
            return
        if problem:
            tell(f"[rch] hook {name} {problem}")

    def _event(self, code: str, reason: str) -> dict[str, object]:
        words = [wire.text(os.fsencode(w)) for w in self.options.argv]
        return {"event": "local", "code": code, "reason": reason, "command": words, "cwd": self.caller.cwd}


def _exec(options: Options, choice: Choice, caller: Caller) -> int:
    from rch.client_local import record_event, replace_process

    if choice.dry_run and choice.code == "disabled":
        tell(f"[rch] dry run: local: {choice.code}: {choice.line}")
    elif choice.dry_run == "only":
        tell(f"[rch] dry run: the real tool would run: {choice.code}: {choice.line}")
    if choice.dry_run == "only":
        return 0
    if choice.code == "disabled":
        try:
            words = [wire.text(os.fsencode(w)) for w in options.argv]
            event = {"event": "local", "code": choice.code, "command": words, "cwd": caller.cwd}
            record_event(state_dir(caller.variables), event)
        except BadPlace:
            pass
    return replace_process(options.argv, caller.environ)


def _status_of(fields: Mapping[str, Any]) -> int:
    status, number = fields.get("status"), fields.get("signal")
    if type(status) is int and 0 <= status <= 255:
        return status
    if type(number) is int and 0 < number < 128:
        return 128 + number
    return 1


def _is_plain_compiler(word: str) -> bool:
    """cc, gcc-12, x86_64-linux-gnu-g++: ``configure`` reads what they print (lessons UX-03)."""
    name = os.path.basename(word)
    stem, _, version = name.rpartition("-")
    if stem and version.replace(".", "").isdigit():
        name = stem
    return name in _C_FAMILY or name.rpartition("-")[2] in _C_FAMILY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
