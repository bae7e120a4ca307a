"""Start one command in the sandbox (or, where a test asks for it, without one) under our own PID 1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from rch.worker import _runner_source
from rch.worker._sandbox import SYSTEM, Host, Mount, bwrap_argv
from rch.worker.protocol import STREAM_STDERR, STREAM_STDOUT, path_bytes
from rch.worker.spec import Spec

_STREAMS = {"1": STREAM_STDOUT, "2": STREAM_STDERR}


class Launched(NamedTuple):
    """A command on its way.

    process: bubblewrap's outer process (or PID 1's stand-in). control: the line to PID 1.
    outputs: pipe -> stream number. stdin: the writing end, or None. errors: what bubblewrap itself has to say.
    terminal_stream: the stream a terminal's output counts as, or None without a terminal.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    outputs: Dict[int, int]
    stdin: Optional[int]
    errors: int
    terminal_stream: Optional[int]


def find_bwrap() -> Optional[str]:
    """bubblewrap, also where the login's PATH is short."""
    return shutil.which("bwrap", path=os.environ.get("PATH", "") + ":/usr/local/bin:/usr/bin:/bin")


def launch(
    spec: Spec,
    argv: Sequence[str],
    env: Mapping[str, str],
    fds: Mapping[str, str],
    *,
    job: str,
    cache: str,
    mounts: Sequence[Mount],
    cpus: Sequence[int],
    enter: Optional[Callable[[], None]] = None,
) -> Launched:
    """Start *argv*. *enter* runs in the child before bubblewrap (cgroup). Raises OSError when it cannot be started.

    Must be called from the main thread of a process that lives as long as the job: the death signal of
    ``--die-with-parent`` follows the thread that spawned (lessons EX-11).
    """
    ours: List[int] = []
    theirs: List[int] = []
    settings: Dict[str, str] = {}
    outputs: Dict[int, int] = {}
    stdin: Optional[int] = None
    try:
        for name in ("0", "1", "2"):
            word = fds[name]
            if word in ("tty", "null"):
                settings[name] = word
                continue
            if word == "same":
                settings[name] = settings["1"]
                continue
            read_end, write_end = os.pipe()
            inner, outer = (read_end, write_end) if name == "0" else (write_end, read_end)
            theirs.append(inner)
            ours.append(outer)
            settings[name] = str(inner)
            if name == "0":
                stdin = outer
            else:
                outputs[outer] = _STREAMS[name]
        errors, errors_end = os.pipe()
        ours.append(errors)
        theirs.append(errors_end)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control_end = far.detach()
        theirs.append(control_end)
        near_end = near.detach()
        ours.append(near_end)
        settings.update(umask=str(spec.umask), cwd=_cwd(spec), rows=str(spec.rows), cols=str(spec.cols))
        python, extra = _python_inside() if spec.sandboxed else (sys.executable, [])
        source = _memory_file(_runner_source.program(python))
        theirs.append(source)
        plan = _memory_file(plan_bytes(settings, argv, env, cpus))
        theirs.append(plan)
        command = ["-I", "-S", "-B", "/proc/self/fd/%d" % source, str(plan), str(control_end)]
        if spec.sandboxed:
            program = find_bwrap()
            if program is None:
                raise FileNotFoundError("bubblewrap is not installed")
            options = bwrap_argv(spec, job, cache, [*extra, *mounts], Host())
            arguments = _memory_file(b"".join(path_bytes(word) + b"\0" for word in options))
            theirs.append(arguments)
            full = [program, "--args", str(arguments), "--", python, *command]
        else:
            full = [python, *command]
        process = subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors_end,
            env={"PATH": "/usr/bin:/bin"},  # the job's own environment travels in the plan, out of everybody's sight
            cwd="/",
            pass_fds=theirs,
            preexec_fn=enter,  # noqa: PLW1509  the supervisor has one thread
        )
        terminal = [_STREAMS.get(name, STREAM_STDOUT) for name in ("1", "2", "0") if settings[name] == "tty"]
        control = socket.socket(fileno=near_end)
        ours.clear()  # from here on the caller's
        return Launched(process, control, outputs, stdin, errors, terminal[0] if terminal else None)
    finally:
        for descriptor in ours + theirs:
            os.close(descriptor)


def plan_bytes(settings: Mapping[str, str], argv: Sequence[str], env: Mapping[str, str], cpus: Sequence[int]) -> bytes:
    """What PID 1 reads: four sections (settings, argv, environment, CPUs) of NUL-ended strings behind their count."""
    sections = (
        ["%s=%s" % pair for pair in settings.items()],
        list(argv),
        ["%s=%s" % pair for pair in env.items()],
        [str(cpu) for cpu in cpus],
    )
    words: List[str] = []
    for section in sections:
        words += [str(len(section)), *section]
    return b"".join(path_bytes(word) + b"\0" for word in words)


def _cwd(spec: Spec) -> str:
    """Without a sandbox the roots are not at their paths: the tree itself is the next best."""
    if not spec.sandboxed:
        for place in spec.roots:
            if spec.cwd == place.path or spec.cwd.startswith(place.path + "/"):
                return place.source + spec.cwd[len(place.path) :]
    return spec.cwd


def _python_inside() -> Tuple[str, List[Mount]]:
    """A Python that the job's root directory has, and what must be mounted for it (nothing on a usual worker)."""
    own = os.path.realpath(sys.executable)
    if any(own.startswith("/%s/" % name) for name in SYSTEM):
        return own, []
    if os.access("/usr/bin/python3", os.X_OK):
        return "/usr/bin/python3", []
    prefix = os.path.realpath(sys.base_prefix)
    return own, [Mount(prefix, prefix, writable=False)]


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("rch", os.MFD_CLOEXEC)
    position = 0
    while position < len(data):
        position += os.write(descriptor, data[position:])
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
