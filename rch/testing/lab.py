"""Workers on this machine: an unprivileged sshd per worker on the loopback address, everything below one directory.

::

    with EmbeddedLab("/tmp/lab") as lab:              # up, and down again whatever happens
        subprocess.run(["rch", "exec", "--", "make"], env=os.environ | lab.environment())

What is real: OpenSSH with public keys and host keys, rsync, Ansible, bubblewrap. What is not: the account (it is the
caller's own), packages (nothing is installed), and the machine (load and disk are shared with this one).

Below the directory: ``lab.json`` (ports and marks), ``inventory/hosts.yml``, ``keys/``, ``state/`` (RCH_STATE_DIR of
:meth:`EmbeddedLab.environment`), ``ansible/``, and per worker ``<name>/`` with its sshd's files and ``cache/``.
The lab is what lies on disk: another process can take it down by making an EmbeddedLab of the same directory.

Standard library only, so that it also runs where nothing is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from rch.errors import Fault, Unreachable
from rch.testing import lab_processes
from rch.testing.lab_provision import CHECKOUT, Recap, program, provision

LAB_ROOT = os.environ.get("RCH_LAB_ROOT") or os.path.join(CHECKOUT, ".lab")
"""Where labs lie by default. Not below /tmp: that may be a tmpfs, where rch keeps no caches."""

DEFAULT_DIR = os.path.join(LAB_ROOT, "embedded")

HOST = "127.0.0.1"

PORTS = (20_000, 32_000)
"""Below the kernel's ephemeral ports (32768 and up), so that no outgoing connection holds one by chance."""

UP_TIMEOUT_S = 15.0

RUN_SSHD = "/run/sshd"
"""sshd refuses to start as root without this directory; on Debian systemd's unit makes it, and there may be none."""

_SSHD_CONFIG = """\
# Written by rch's embedded lab; nothing here is shared with the machine's own sshd.
ListenAddress {host}
Port {port}
HostKey "{keys}/host"
AuthorizedKeysFile "{keys}/authorized_keys"
PidFile "{directory}/sshd.pid"
AllowUsers {user}
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
# The keys lie in the lab's directory (0700), which may be below the world-writable /tmp.
StrictModes no
UseDNS no
X11Forwarding no
PrintMotd no
# Many tests connect at once; the default starts to refuse at 10 that are not yet authenticated.
MaxStartups 200
Subsystem sftp internal-sftp
# sshd runs every command by the account's shell. bash, started by sshd, reads .bashrc unless SHLVL says that it is not
# the first shell, and zsh reads $ZDOTDIR/.zshenv: a profile with a version manager costs 100 ms each time.
SetEnv {mark_name}={mark} SHLVL=1 "ZDOTDIR={directory}/empty"{more}
"""


class EmbeddedWorker:
    """One worker of an embedded lab: its sshd, its keys, its cache. Made by :class:`EmbeddedLab`."""

    def __init__(self, lab: EmbeddedLab, name: str, port: int, mark: str) -> None:
        self.name = name
        self.host = HOST
        self.port = port
        self.user = getpass.getuser()
        self.mark = mark
        self.directory = os.path.join(lab.directory, name)
        self.cache_dir = os.path.join(self.directory, "cache")
        self.keys = os.path.join(lab.directory, "keys")
        self.client_key = os.path.join(self.keys, "client")
        self.known_hosts = os.path.join(self.keys, "known_hosts")
        self.session_environment: dict[str, str] = {}
        """What sessions find in their environment besides; :meth:`plug_in` reads it. Words without spaces or quotes."""

    # --- the network cable ---

    def plug_in(self) -> None:
        """Start sshd on the worker's port and wait until it answers; nothing happens when it already does.

        Raises Unreachable when it does not within UP_TIMEOUT_S; the message ends with what sshd said.
        """
        if self.sshd_pid() is not None:
            return
        for directory in (self.directory, os.path.join(self.directory, "empty")):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        config = os.path.join(self.directory, "sshd_config")
        write_private(
            config,
            _SSHD_CONFIG.format(
                host=HOST,
                port=self.port,
                keys=self.keys,
                directory=self.directory,
                user=self.user,
                mark_name=lab_processes.MARK,
                mark=self.mark,
                more="".join(f" {name}={value}" for name, value in self.session_environment.items()),
            ),
        )
        log = os.path.join(self.directory, "sshd.log")
        _make_run_sshd()
        started = time.monotonic()
        done = subprocess.run(
            [program("sshd"), "-f", config, "-E", log],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        while not self.answers():
            if done.returncode != 0 or time.monotonic() - started > UP_TIMEOUT_S:
                message = f"the sshd of {self.name} does not answer on port {self.port}: {_last_line(log)}"
                raise Unreachable(message, host=self.name, hint=f"read {log}")
            time.sleep(0.02)

    def unplug(self) -> None:
        """End sshd and every connection; what the worker runs goes on, as behind a cut cable."""
        pid = self.sshd_pid()
        if pid is not None:
            # First the listener, so that nobody comes back between the two steps.
            connections = lab_processes.descendants([pid], named="sshd")
            lab_processes.stop([pid], grace_s=0)
            lab_processes.stop(connections, grace_s=0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, "sshd.pid"))

    def power_off(self) -> None:
        """End sshd and, at once and without warning, everything that the worker runs."""
        running = self.processes()
        self.unplug()
        lab_processes.stop(running | self.processes(), grace_s=0)

    # --- looking ---

    def sshd_pid(self) -> int | None:
        """Pid of the worker's sshd, if it runs."""
        try:
            with open(os.path.join(self.directory, "sshd.pid"), encoding="ascii") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
        except (OSError, ValueError):
            return None
        # The pid may belong to somebody else by now: sshd's title names the configuration file it was started with.
        config = os.path.join(self.directory, "sshd_config")
        return pid if config.encode() in command else None

    def answers(self) -> bool:
        """True if an SSH server answers on the worker's port."""
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def processes(self) -> set[int]:
        """Pids of what sessions of this worker started and that still runs."""
        return lab_processes.marked(self.mark)

    def ssh_command(self, *words: str) -> list[str]:
        """argv of an ``ssh`` that runs *words* on the worker, quoted for its shell."""
        return [program("ssh"), *self.ssh_options(), f"{self.user}@{HOST}", *(shlex.quote(word) for word in words)]

    def ssh_options(self) -> list[str]:
        """Everything ``ssh`` has to know, independent of the user's own configuration."""
        return [
            *self.common_args(),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-i", self.client_key, "-p", str(self.port)),
        ]

    def common_args(self) -> list[str]:
        """``ansible_ssh_common_args``: the lab's known_hosts and no other configuration."""
        known_hosts = f'UserKnownHostsFile="{self.known_hosts}"'
        return ["-F", "/dev/null", "-o", known_hosts, "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]

    def run(self, *words: str, timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
        """Run *words* there; the result is not checked."""
        return subprocess.run(
            self.ssh_command(*words), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )


class EmbeddedLab:
    """A directory with embedded workers ``lab1``, ``lab2``, … and the inventory that names them.

    workers, slots: used when the lab is made; a lab that is there keeps what it was made with.
    """

    def __init__(self, directory: str = DEFAULT_DIR, *, workers: int = 1, slots: int | None = None) -> None:
        self.directory = os.path.abspath(directory)
        self.inventory = os.path.join(self.directory, "inventory")
        self.state_dir = os.path.join(self.directory, "state")
        self.workers: dict[str, EmbeddedWorker] = {}
        self._wanted = workers
        self._slots = slots or len(os.sched_getaffinity(0))
        self._load()

    # --- up and down ---

    def up(self, *, with_roles: bool = True) -> Recap | None:
        """Start the workers and provision them; what is up stays as it is. Returns Ansible's recap.

        Raises Unreachable (an sshd does not start) or PlaybookFailed; then what was made is taken down again,
        unless it was up before.
        """
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        with lock_directory(self.directory):
            self._load()
            fresh = not self.workers
            try:
                if fresh:
                    self._make_keys()
                for name in [f"lab{n + 1}" for n in range(self._wanted)] if fresh else list(self.workers):
                    self._start(name)
                self._write_inventory()
                return (
                    provision(self.inventory, scratch=self.directory, state_dir=self.state_dir) if with_roles else None
                )
            except BaseException:
                if fresh:
                    self._remove(keep=("ansible",))
                raise

    def down(self) -> None:
        """Remove every trace: processes, then files. A lab that is not there is down."""
        if not os.path.isdir(self.directory):
            return
        with lock_directory(self.directory):
            self._load()
            self._remove()
        drop_lab_root()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- for those who use it ---

    @property
    def worker(self) -> EmbeddedWorker:
        """The first worker."""
        return next(iter(self.workers.values()))

    def environment(self, state_dir: str | None = None) -> dict[str, str]:
        """What ``rch`` needs in its environment to use this lab and nothing else of this machine."""
        return {"RCH_INVENTORY": self.inventory, "RCH_STATE_DIR": state_dir or self.state_dir}

    def status(self) -> list[dict[str, object]]:
        """One object per worker: name, address, whether sshd answers, pids of what it runs."""
        return [
            {
                "name": worker.name,
                "address": f"{worker.user}@{worker.host}:{worker.port}",
                "up": worker.answers(),
                "processes": sorted(worker.processes()),
            }
            for worker in self.workers.values()
        ]

    # --- insides ---

    def _record(self) -> str:
        return os.path.join(self.directory, "lab.json")

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self._record(), encoding="utf-8") as file:
            record = json.load(file)
            self._slots = record["slots"]
            self.workers = {
                name: EmbeddedWorker(self, name, worker["port"], worker["mark"])
                for name, worker in record["workers"].items()
            }

    def _save(self) -> None:
        workers = {worker.name: {"port": worker.port, "mark": worker.mark} for worker in self.workers.values()}
        write_private(self._record(), json.dumps({"slots": self._slots, "workers": workers}, indent=2) + "\n")

    def _make_keys(self) -> None:
        keys = os.path.join(self.directory, "keys")
        shutil.rmtree(keys, ignore_errors=True)
        os.makedirs(keys, mode=0o700)
        for name in ("host", "client"):
            subprocess.run(
                [
                    program("ssh-keygen"),
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    f"rch lab {name}",
                    "-f",
                    f"{keys}/{name}",
                ],
                stdin=subprocess.DEVNULL,
                check=True,
                timeout=30,
            )
        shutil.copyfile(f"{keys}/client.pub", f"{keys}/authorized_keys")
        os.chmod(f"{keys}/authorized_keys", 0o600)
        write_private(f"{keys}/known_hosts", "")

    def _start(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].plug_in()
            return
        chance = random.SystemRandom()
        for attempt in range(10):
            mark = secrets.token_hex(8)
            worker = EmbeddedWorker(self, name, chance.randrange(*PORTS), mark)
            if worker.answers():
                continue
            # On disk before the process is there: whatever happens now, down() finds it.
            self.workers[name] = worker
            self._save()
            try:
                worker.plug_in()
            except Unreachable:
                worker.unplug()
                del self.workers[name]
                taken = "Cannot bind any address" in _text(os.path.join(worker.directory, "sshd.log"))
                if attempt == 9 or not taken:
                    raise
                continue
            kind, key = _text(os.path.join(worker.keys, "host.pub")).split()[:2]
            with open(worker.known_hosts, "a", encoding="utf-8") as file:
                file.write(f"[{HOST}]:{worker.port} {kind} {key}\n")
            return

    def _write_inventory(self) -> None:
        os.makedirs(self.inventory, mode=0o700, exist_ok=True)
        hosts = {
            worker.name: {
                "ansible_host": worker.host,
                "ansible_port": worker.port,
                "ansible_user": worker.user,
                "ansible_ssh_private_key_file": worker.client_key,
                "ansible_ssh_common_args": shlex.join(worker.common_args()),
                "ansible_python_interpreter": system_python(),
                "ansible_become": False,
                "rch_embedded": True,
                "rch_user": worker.user,
                "rch_ssh_key": worker.client_key,
                "rch_cache_dir": worker.cache_dir,
                "rch_slots": self._slots,
                "rch_description": "embedded worker on this machine",
            }
            for worker in self.workers.values()
        }
        write_inventory(self.inventory, hosts, note="Written by the embedded lab: inv lab.up, inv lab.down")

    def _remove(self, keep: Sequence[str] = ()) -> None:
        for worker in self.workers.values():
            running = worker.processes()
            worker.unplug()
            lab_processes.stop(running | worker.processes())
        stop_daemons(self.directory)
        self.workers = {}
        for name in os.listdir(self.directory):
            if name not in keep:
                remove_tree(os.path.join(self.directory, name))
        with contextlib.suppress(OSError):  # not empty: something was to be kept
            os.rmdir(self.directory)
        _remove_run_sshd()


@contextlib.contextmanager
def lock_directory(directory: str, *, timeout_s: float = 1800) -> Iterator[None]:
    """One ``up`` or ``down`` of a directory at a time; raises Fault when the other takes longer than *timeout_s*."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    message = f"another process has held {directory} for {timeout_s:.0f} s"
                    raise Fault(message, host="here") from error
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def system_python() -> str:
    """The interpreter for the worker's side: the system's, as on any worker, not the environment's."""
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else os.path.realpath(sys.executable)


def write_inventory(directory: str, hosts: Mapping[str, Mapping[str, object]], *, note: str) -> None:
    """Write ``hosts.yml`` with *hosts* in group ``rch_workers``; every value a literal (JSON is YAML)."""
    lines = [f"# {note}", "---", "all:", "  children:", "    rch_workers:", "      hosts:"]
    for name, variables in hosts.items():
        lines.append(f"        {name}:")
        lines += [f"          {key}: {json.dumps(value)}" for key, value in variables.items()]
    write_private(os.path.join(directory, "hosts.yml"), "\n".join(lines) + "\n")


def drop_lab_root() -> None:
    """Remove the directory of all labs when the last one has gone."""
    with contextlib.suppress(OSError):
        os.rmdir(LAB_ROOT)


def remove_tree(path: str) -> None:
    """Remove a file or tree of ours whatever its modes (cargo's registry and Go's cache are read-only)."""
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)
    shutil.rmtree(path)


def stop_daemons(directory: str) -> None:
    """End every rchd whose state directory lies below *directory*."""
    wanted = f"RCH_STATE_DIR={directory}/".encode()
    daemons = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/environ", "rb") as file:
                ours = any(line.startswith(wanted) for line in file.read().split(b"\0"))
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read()
            if ours and (b"rchd" in command or b"rch.daemon" in command):
                daemons.add(int(name))
    lab_processes.stop(daemons | lab_processes.descendants(daemons), grace_s=5)


_RUN_SSHD_NOTE = os.path.join(RUN_SSHD, ".made-by-rch-lab")


def _make_run_sshd() -> None:
    if os.geteuid() == 0 and not os.path.isdir(RUN_SSHD):
        os.makedirs(RUN_SSHD, mode=0o755, exist_ok=True)
        write_private(_RUN_SSHD_NOTE, "")


def _remove_run_sshd() -> None:
    """Undo :func:`_make_run_sshd`, unless another sshd of this machine needs the directory by now."""
    if not os.path.exists(_RUN_SSHD_NOTE) or lab_processes.named("sshd"):
        return
    with contextlib.suppress(OSError):
        os.unlink(_RUN_SSHD_NOTE)
        os.rmdir(RUN_SSHD)


def write_private(path: str, text: str) -> None:
    """Write a private file by rename: a reader sees the old or the new, whole."""
    temporary = f"{path}.{os.getpid()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _last_line(path: str) -> str:
    lines = _text(path).splitlines()
    return lines[-1] if lines else "it wrote no log"
