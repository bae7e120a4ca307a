"""The birth of rchd by a client: who may, and how it is done (lessons DS-06, DS-10).

rchd outlives whoever starts it and then works for every caller of this user. Started from inside a sandbox it would
take over that sandbox's mounts, processes and limits; so only a client that is in the namespaces of the user's
session may start it, and the child gets nothing of the caller's: own session, no descriptors, a clean environment.
"""

# ruff: noqa: SIM105, S606 -- contextlib costs the client's start-up 2 ms; exec is what this module is for

from __future__ import annotations

import os
import sys
from time import monotonic, sleep, time

from rch.client_frames import dumps, load_object, raw, text
from rch.client_options import DAEMON_VARIABLES
from rch.client_paths import path_without_shims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COOL_DOWN_S = 10.0
"""Seconds after a failed start in which no client tries again."""

START_S = 5.0
"""Seconds a client waits for an rchd that is starting; one that ends sooner is noticed at once."""

_KEPT = (
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSH_AUTH_SOCK",
    "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip
_NAMESPACES = ("mnt", "pid", "user")


def daemon_argv() -> list[str]:
    """The words that start rchd in the foreground with this interpreter and this copy of rch."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = f"import sys; sys.path.append({here!r}); from rch.daemon.__main__ import main; sys.exit(main())"
    return [sys.executable, "-I", "-c", code, "rchd"]


def daemon_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What rchd is given of the caller's environment, and nothing else (coverage A-11)."""
    kept = {name: environ[name] for name in (*_KEPT, *DAEMON_VARIABLES) if environ.get(name)}
    kept["PATH"] = path_without_shims(kept.get("PATH", "")) or os.defpath
    return kept


def confinement(state: str) -> str:
    """Why this process is not in the namespaces of the user's session, or "".

    What is known for sure comes first: the namespaces that a start on this boot recorded in ``<state>/session.json``.
    Without a record: no_new_privs (every unprivileged seccomp, Landlock and bubblewrap sandbox has to set it), a user
    namespace with at most one id (made by an unprivileged program), another namespace than an ancestor has.
    """
    status = _read("/proc/self/status")
    for line in status.splitlines():
        if line.startswith("NoNewPrivs:") and line.split()[1:] == ["1"]:
            return "this process is in a sandbox (no_new_privs)"
    here = namespaces("self")
    recorded = _recorded(state)
    if recorded:
        differ = [n for n in _NAMESPACES if recorded.get(n) != here.get(n)]
        return f"this process is in other namespaces than the user's session ({', '.join(differ)})" if differ else ""
    ranges = [line.split() for line in _read("/proc/self/uid_map").splitlines()]
    if not ranges or (len(ranges) == 1 and ranges[0][2:] == ["1"]):
        return "this process is in a user namespace of its own"
    pid = os.getppid()
    while pid > 0:
        there = namespaces(str(pid))
        differ = [n for n in there if there[n] != here.get(n)]
        if differ:
            return f"this process is in other namespaces than its ancestor {pid} ({', '.join(differ)})"
        pid = _parent(pid)
    return ""


def namespaces(pid: str) -> dict[str, str]:
    """Names of the mount, PID and user namespaces of *pid* ("self"), as far as they may be seen."""
    found = {}
    for name in _NAMESPACES:
        try:
            found[name] = os.readlink(f"/proc/{pid}/ns/{name}")
        except OSError:  # another user's process, or no /proc
            continue
    return found


def record_session(state: str) -> None:
    """Remember the namespaces of this process as those of the user's session, for this boot.

    For whoever starts rchd by the user's own will: ``rch daemon start``, a hook, ``systemd --user``.
    """
    os.makedirs(state, mode=0o700, exist_ok=True)
    beside = os.path.join(state, f"session.json.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, dumps({"boot": _boot(), **namespaces("self")}) + b"\n")
    finally:
        os.close(fd)
    os.rename(beside, os.path.join(state, "session.json"))


def start_daemon(
    state: str, run: str, environ: Mapping[str, str], answers: Callable[[], bool], limit_s: float = START_S
) -> str:
    """Start rchd, once, however many clients come at the same moment, and wait until it answers.

    limit_s: how long the caller may be kept.
    answers: asks whether rchd can be reached by now.
    Returns "" or the reason why there is no rchd.
    """
    import fcntl

    try:
        for place in (state, run):
            os.makedirs(place, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(run, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        return f"{run} cannot be written ({error.strerror})"
    until = monotonic() + limit_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # another client is starting it
                if answers():
                    return ""
                if monotonic() > until:
                    return f"rchd is being started and did not answer within {limit_s:g} s"
                sleep(0.02)
        if answers():
            return ""
        age = time() - os.fstat(lock).st_mtime
        if os.fstat(lock).st_size and 0 <= age < COOL_DOWN_S:
            return f"rchd could not be started {age:.0f} s ago"
        os.ftruncate(lock, 0)
        try:
            record_session(state)
            pid = _spawn(daemon_argv(), daemon_environment(environ), os.path.join(state, "log"))
        except OSError as error:
            problem = f"rchd could not be started ({error.strerror})"
        else:
            problem = _await(pid, until, limit_s, answers)
            said = _read(os.path.join(state, "log", "rchd.err")).strip().splitlines() if problem else []
            problem += f": {said[-1]}" if said else ""
        if problem:
            os.write(lock, raw(problem + "\n"))  # with its time, the mark of the cool-down
        return problem
    finally:
        os.close(lock)


def _await(pid: int, until: float, limit_s: float, answers: Callable[[], bool]) -> str:
    while not answers():
        if not _alive(pid):
            return "" if answers() else "rchd ended right after its start"
        if monotonic() > until:
            return f"rchd (pid {pid}) did not answer within {limit_s:g} s"
        sleep(0.02)
    return ""


def _spawn(argv: list[str], environ: dict[str, str], log_dir: str) -> int:
    """Start *argv* as nobody's child, in a session of its own, its last words in ``rchd.err``; its pid."""
    os.makedirs(log_dir, mode=0o700, exist_ok=True)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(argv, environ, os.path.join(log_dir, "rchd.err"), write_end)
        finally:
            os._exit(127)
    os.close(write_end)
    try:
        told = os.read(read_end, 32)
    finally:
        os.close(read_end)
        os.waitpid(child, 0)
    if not told:
        raise OSError(0, "the process could not be detached")
    return int(told)


def _become(argv: list[str], environ: dict[str, str], errors: str, write_end: int) -> None:
    os.setsid()
    pid = os.fork()
    if pid:
        os.write(write_end, str(pid).encode("ascii"))
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    null = os.open("/dev/null", os.O_RDWR)
    said = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    for number, source in ((0, null), (1, said), (2, said)):
        os.dup2(source, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 65536)
    if TYPE_CHECKING:
        import signal
    else:
        import _signal as signal
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # KILL, STOP and the C library's own
            pass
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execve(argv[0], argv, environ)


def _recorded(state: str) -> dict[str, str]:
    try:
        found = load_object(_read(os.path.join(state, "session.json")).encode("ascii"))
    except Exception:  # noqa: BLE001 -- missing, unreadable or damaged all mean: nothing is recorded
        return {}
    return found if found.get("boot") == _boot() else {}


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _parent(pid: int) -> int:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _alive(pid: int) -> bool:
    # A zombie counts as gone: in a container nobody may reap it.
    state = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1]
    return state not in ([], ["Z"], ["X"])


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return text(os.read(fd, 64 * 1024))
    finally:
        os.close(fd)
