# ruff: noqa: SIM105, SLF001  contextlib costs 1 ms of every job; os._exit is what PID 1 does
"""PID 1 of a job's sandbox: starts the job, reaps everything, tells the supervisor exactly how it ended.

bubblewrap's own init would do, but it turns death by a signal into an exit code, so ``exit 137`` and SIGKILL become
one. This file runs alone, by any Python 3.6 or newer of the worker with ``-I -S``: built-in modules only, and few of
them, because its start is part of every job's latency. When PID 1 ends the kernel kills whatever the job left behind
(lessons EX-02); when the supervisor's end of the socket closes, so does PID 1.

Arguments: the descriptor of the plan (see ``plan_bytes`` in ``_launch.py``) and of the socket to the supervisor.

Lines to the supervisor: ``T`` (with the terminal's descriptor), ``S <ns>`` started, ``F <errno> <stage>`` could not be
started, ``X <wait status> <user ms> <system ms> <max rss KiB>`` ended. From it: ``K <signal>`` to the job's process
group, ``A <signal>`` to every process, ``B`` bye.
"""

import _socket
import errno
import fcntl
import posix as os
import resource
import select
import sys
import time

TYPE_CHECKING = False  # as in typing, whose import would cost 4 ms of every job
if TYPE_CHECKING:
    import signal
    from typing import Dict, List, NoReturn, Optional, Tuple

    _Words = List[bytes]
    _Numbers = List[int]
    _Maybe = Optional[int]
    _Settings = Dict[bytes, bytes]
    _Plan = Tuple[_Settings, _Words, _Words, _Numbers]
else:
    import _signal as signal

_SCM_RIGHTS, _SOL_SOCKET = 1, 1  # of Linux; _socket has them, but not in every build
_TIOCSCTTY, _TIOCSWINSZ, _TCGETS, _TCSETS = 0x540E, 0x5414, 0x5401, 0x5402
_OPOST = 1


def _read_all(fd: int) -> bytes:
    os.lseek(fd, 0, 0)
    blocks = []  # type: List[bytes]
    while True:
        block = os.read(fd, 1 << 20)
        if not block:
            os.close(fd)
            return b"".join(blocks)
        blocks.append(block)


def _parse(data: bytes) -> "_Plan":
    """Sections of NUL-ended strings, each behind its count."""
    parts = data.split(b"\0")
    position = 0
    sections = []
    while position < len(parts) - 1:
        count = int(parts[position])
        sections.append(parts[position + 1 : position + 1 + count])
        position += 1 + count
    settings, argv, env, cpus = sections
    table = {name: value for name, _, value in (pair.partition(b"=") for pair in settings)}
    return table, argv, env, [int(cpu) for cpu in cpus]


def _exec(argv: "_Words", env: "_Words") -> int:
    """As execvpe does it, and with a shell's idea of 126 and 127; returns the errno."""
    table = {}
    for pair in env:
        name, _, value = pair.partition(b"=")
        table[name] = value
    name = argv[0]
    if b"/" in name:
        places = [name]
    else:
        places = [(d or b".") + b"/" + name for d in table.get(b"PATH", b"/bin:/usr/bin").split(b":")]
    found = errno.ENOENT  # type: int
    for place in places:
        try:
            os.execve(place, argv, table)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                try:
                    os.execve(b"/bin/sh", [b"/bin/sh", place, *argv[1:]], table)
                except OSError as inner:
                    error = inner
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                found = error.errno or errno.EIO
                if error.errno != errno.EACCES:
                    break
    return found


def _open_terminal(settings: "_Settings", control: _socket.socket) -> int:
    """A terminal of this sandbox's own, so that ttyname works; its other end goes to the supervisor."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
    rows, cols = int(settings[b"rows"]), int(settings[b"cols"])
    sizes = b"".join(n.to_bytes(2, sys.byteorder) for n in (rows, cols, 0, 0))
    fcntl.ioctl(slave, _TIOCSWINSZ, sizes)
    if settings[b"0"] != b"tty":
        # Output only: the caller's own terminal translates newlines, twice would not be the same bytes.
        state = bytearray(fcntl.ioctl(slave, _TCGETS, bytes(60)))
        flags = int.from_bytes(state[4:8], sys.byteorder) & ~_OPOST
        state[4:8] = flags.to_bytes(4, sys.byteorder)
        fcntl.ioctl(slave, _TCSETS, bytes(state))
    control.sendmsg([b"T\n"], [(_SOL_SOCKET, _SCM_RIGHTS, master.to_bytes(4, sys.byteorder))])
    os.close(master)
    return slave


def _child(
    settings: "_Settings", argv: "_Words", env: "_Words", cpus: "_Numbers", slave: "_Maybe", report: int
) -> "NoReturn":
    stage = b"setup"
    number = 0  # type: Optional[int]
    try:
        os.setpgid(0, 0)
        if slave is not None:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(slave, os.getpid())
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, 20)
        sources = []
        for name in (b"0", b"1", b"2"):
            word = settings[name]
            if word == b"tty" and slave is not None:
                sources.append(fcntl.fcntl(slave, fcntl.F_DUPFD, 20))
            elif word == b"null":
                sources.append(fcntl.fcntl(os.open(b"/dev/null", os.O_RDWR), fcntl.F_DUPFD, 20))
            else:
                sources.append(fcntl.fcntl(int(word), fcntl.F_DUPFD, 20))
        for target, source in enumerate(sources):
            os.dup2(source, target)
        os.closerange(3, report)
        os.closerange(report + 1, 1024)
        if cpus:
            os.sched_setaffinity(0, cpus)
        os.umask(int(settings[b"umask"]))
        stage = b"cwd"
        os.chdir(settings[b"cwd"])
        stage = b"exec"
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        number = _exec(argv, env)
    except OSError as error:
        number = error.errno
    except BaseException:  # noqa: BLE001  whatever it is, it must not become a second supervisor
        number = errno.EIO
    os.write(report, b"%d %s" % (number or errno.EIO, stage))
    os._exit(127)


def _children() -> "_Numbers":
    """Direct children, where we are not PID 1 (sandbox none: then every descendant becomes one, see main)."""
    try:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            return [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []


def _kill_all(number: int) -> None:
    """Every process of the sandbox but this one. Never kill(-1) outside a PID namespace of our own."""
    if os.getpid() == 1:
        try:
            os.kill(-1, number)
        except OSError:
            pass
        return
    for pid in _children():
        for target in (-pid, pid):
            try:
                os.kill(target, number)
            except OSError:
                pass


def main() -> "NoReturn":
    settings, argv, env, cpus = _parse(_read_all(int(sys.argv[1])))
    fd = int(sys.argv[2])
    control = _socket.socket(fileno=fd)
    control.setblocking(True)
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    try:
        os.setsid()
    except OSError:
        pass  # a session of our own already
    if os.getpid() != 1:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    slave = _open_terminal(settings, control) if b"tty" in (settings[b"0"], settings[b"1"], settings[b"2"]) else None
    report_read, report_write = os.pipe()
    started = time.time()
    main_pid = os.fork()
    if main_pid == 0:
        _child(settings, argv, env, cpus, slave, report_write)
    try:
        os.setpgid(main_pid, main_pid)
    except OSError:
        pass  # it was quicker, or is gone
    os.close(report_write)
    if slave is not None:
        os.close(slave)
    for word in (settings[b"0"], settings[b"1"], settings[b"2"]):
        if word.isdigit():
            try:
                os.close(int(word))
            except OSError:
                pass  # fd 1 and 2 may be one
    failure = os.read(report_read, 200)
    os.close(report_read)
    if failure:
        os.waitpid(main_pid, 0)
        control.sendall(b"F " + failure + b"\n")
        _linger(control)
    control.sendall(b"S %d\n" % int(started * 1e9))
    status = _watch(control, wake_read, main_pid)
    _kill_all(signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except OSError:
            break
        if os.getpid() != 1:
            _kill_all(signal.SIGKILL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = b"X %d %d %d %d\n" % (status, usage.ru_utime * 1000, usage.ru_stime * 1000, usage.ru_maxrss)
    try:
        control.sendall(line)
    except OSError:
        os._exit(1)
    _linger(control)


def _linger(control: _socket.socket) -> "NoReturn":
    """Wait until the supervisor has read the terminal empty: our end would hang it up and drop what is still in it."""
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.poll(10000)
    os._exit(0)


def _watch(control: _socket.socket, wake_read: int, main_pid: int) -> int:
    """Serve signals and reap until the main process has ended; its wait status."""
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    buffer = b""
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except OSError:
                break
            if pid == main_pid:
                return status
            if pid == 0:
                break
        for fd, _ in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
                continue
            data = control.recv(4096)
            if not data:
                _kill_all(signal.SIGKILL)
                os._exit(1)
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                word, _, number = line.partition(b" ")
                if word == b"A":
                    _kill_all(int(number))
                elif word == b"K":
                    try:
                        os.kill(-main_pid, int(number))
                    except OSError:
                        pass


main()
