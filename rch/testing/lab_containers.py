"""Container workers: machines of their own, as far as one machine can have them, by podman.

Each has its own address on a network of the lab's own, an sshd as its first process, root as the administrator who
logs in by key, and nothing installed that a freshly installed Debian server would not have: the roles do the rest.

podman's storage, network definitions and configuration are the project's own (``--root``, ``CONTAINERS_CONF``), so
nothing of the user's is listed, reused or pruned. The base image is built once by debootstrap and kept as a tar file in
the cache directory ($RCH_LAB_CACHE, default ~/.cache/rch/lab), together with the .deb files that roles download.

Addresses that this machine can reach need a bridge, and a bridge needs root: without it up() says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO, Self

from rch.errors import Fault, Refused, Unreachable
from rch.testing.lab import (
    LAB_ROOT,
    drop_lab_root,
    lock_directory,
    remove_tree,
    stop_daemons,
    write_inventory,
    write_private,
)
from rch.testing.lab_provision import Recap, program, provision

DEFAULT_DIR = os.path.join(LAB_ROOT, "containers")

SUITE = "bookworm"

BASE_PACKAGES = ("openssh-server", "python3", "ca-certificates", "iproute2", "procps", "sudo")
"""What every installed Debian server has; all that rch needs besides is the roles' business."""

TWIN_PLACES = ("/usr", "/etc/alternatives", "/etc/ld.so.cache", "/var/lib/dpkg")
"""What a twin shares with this machine, read-only: programs, headers, libraries and the record of their packages."""

_TWIN_PACKAGES = [{"package": name, "command": name} for name in ("gcc", "make")]
"""All else is there as far as it is here, and nothing can be installed on a twin."""

_CONTAINERS_CONF = """\
[containers]
# Raising limits needs CAP_SYS_RESOURCE, which not every root has: stay below the usual ones.
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
# crun refuses hybrid cgroups.
runtime = "runc"
[network]
network_config_dir = {networks}
"""

_INIT = """\
set -e
[ -f /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -o HostKey=/etc/ssh/ssh_host_ed25519_key
"""
"""PID 1. sshd collects every orphan that is handed to it, so no other init is needed."""

_INIT_SYSTEMD = """\
set -e
[ -f /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
if [ ! -x /lib/systemd/systemd ]; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends systemd systemd-sysv dbus
fi
exec /sbin/init
"""
"""PID 1 of a machine whose services are units: systemd starts sshd."""

UP_TIMEOUT_S = 60.0

SYSTEMD_UP_TIMEOUT_S = 300.0
"""systemd comes from the mirror first."""


class Podman:
    """The ``podman`` program with storage of its own below the cache directory."""

    def __init__(self, cache_dir: str) -> None:
        self.cache_dir = cache_dir
        self.config = os.path.join(cache_dir, "containers.conf")
        # In /run: what lies there is gone after a restart of the machine, as podman expects.
        self.run_dir = f"/run/rch-lab-{hashlib.blake2b(os.fsencode(cache_dir), digest_size=4).hexdigest()}"

    def prepare(self) -> None:
        if os.geteuid() != 0:
            message = "container workers need root here: addresses of their own need a network bridge"
            raise Refused(message, hint="inv lab.up makes an embedded worker without root")
        for tool in ("podman", "runc"):
            program(tool)
        networks = os.path.join(self.cache_dir, "networks")
        os.makedirs(networks, mode=0o700, exist_ok=True)
        text = _CONTAINERS_CONF.format(networks=json.dumps(networks))
        write_private(self.config, text)

    def run(
        self, *words: str, data: bytes | None = None, timeout_s: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """``podman WORDS``; raises Fault with podman's last line when it fails and *check* is set."""
        done = subprocess.run(
            [
                program("podman"),
                *("--root", os.path.join(self.cache_dir, "storage")),
                *("--runroot", self.run_dir),
                *("--tmpdir", os.path.join(self.run_dir, "tmp")),
                *words,
            ],
            input=data if data is not None else b"",
            capture_output=True,
            env={**os.environ, "CONTAINERS_CONF": self.config},
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            message = f"podman {words[0]} ended with status {done.returncode}: {said[-1] if said else 'no message'}"
            raise Fault(message, host="here")
        return done

    def tidy(self) -> None:
        """Remove podman's files in /run when no container is left."""
        listed = self.run("ps", "--all", "--quiet", check=False)
        if listed.returncode == 0 and not listed.stdout.strip():
            shutil.rmtree(self.run_dir, ignore_errors=True)


class ContainerWorker:
    """One container. Made by :class:`ContainerLab`."""

    def __init__(self, lab: ContainerLab, name: str, container: str, address: str) -> None:
        self.name = name
        self.up_timeout_s = UP_TIMEOUT_S
        self.container = container
        self.host = address
        self.port = 22
        self.user = "root"
        self._lab = lab
        self._podman = lab.podman

    def power_off(self) -> None:
        """Pull the plug: every process there is killed at once; its disk stays."""
        self._podman.run("kill", "--signal", "KILL", self.container, check=False)
        self._podman.run("wait", "--condition", "stopped", self.container, timeout_s=30, check=False)

    def power_on(self) -> None:
        """Start it again (same address, same disk, same host key) and wait for its sshd."""
        self._podman.run("start", self.container)
        self.wait_until_up()

    def freeze(self) -> None:
        """Stop everything in it for now: connections stay open and nobody answers."""
        self._podman.run("pause", self.container)

    def thaw(self) -> None:
        self._podman.run("unpause", self.container)

    def cut_off(self) -> None:
        """Take its way out: it reaches this machine and the lab's other workers, no registry and no mirror."""
        # Root in the container may not do that; here, in its network, we may.
        pid = self._podman.run("inspect", "--format", "{{.State.Pid}}", self.container).stdout.decode().strip()
        subprocess.run(
            ["nsenter", "--target", pid, "--net", program("ip"), "route", "del", "default"],
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=30,
        )

    def run(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run *words* in it as root, not by way of ssh; the result is not checked."""
        return self._podman.run("exec", self.container, *words, timeout_s=timeout_s, check=False)

    def ssh_command(self, *words: str, user: str = "root") -> list[str]:
        """argv of an ``ssh`` that runs *words* there, quoted for its shell, whatever the user's own configuration."""
        key = self._lab.admin_key if user == "root" else self._lab.rch_key
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-i", key]
        quoted = [shlex.quote(word) for word in words]
        return [program("ssh"), *self._lab.common_args(), *options, f"{user}@{self.host}", *quoted]

    def answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_until_up(self) -> None:
        """Wait for sshd; raises Unreachable after ``up_timeout_s``."""
        started = time.monotonic()
        while not self.answers():
            elapsed_s = time.monotonic() - started
            if elapsed_s > self.up_timeout_s:
                said = self._podman.run("logs", "--tail", "1", self.container, check=False)
                last = (said.stdout + said.stderr).decode("utf-8", "replace").strip()
                message = (
                    f"the sshd of container {self.name} does not answer at {self.host}: {last or 'it said nothing'}"
                )
                raise Unreachable(message, host=self.name, elapsed_s=elapsed_s)
            time.sleep(0.05)


class ContainerLab:
    """A directory with the keys and the inventory of *workers* containers ``box1``, ``box2``, ….

    cpus: CPUs each may use (``--cpus``), None for all; slots: ``rch_slots``, default the CPUs of this machine.
    twin: containers that are installed as this machine is (see TWIN_PLACES), as in a fleet made from one image: only
    with the very same packages is C built there (lessons TE-05). The roles find nothing to install on them.
    systemd: how many of the workers, from the first on, have systemd as their first process.
    A lab that is there keeps what it was made with.
    """

    def __init__(
        self,
        directory: str = DEFAULT_DIR,
        *,
        workers: int = 1,
        cpus: float | None = None,
        slots: int | None = None,
        cache_dir: str | None = None,
        twin: bool = False,
        systemd: int = 0,
    ) -> None:
        self._twin = twin
        self._systemd = systemd
        self.directory = os.path.abspath(directory)
        self.inventory = os.path.join(self.directory, "inventory")
        self.state_dir = os.path.join(self.directory, "state")
        self.admin_key = os.path.join(self.directory, "keys", "admin")
        self.rch_key = os.path.join(self.directory, "keys", "rch")
        self.known_hosts = os.path.join(self.directory, "keys", "known_hosts")
        self.cache_dir = cache_dir or default_cache_dir()
        self.podman = Podman(self.cache_dir)
        self.workers: dict[str, ContainerWorker] = {}
        self._id = ""
        self._wanted = workers
        self._cpus = cpus
        self._slots = slots or len(os.sched_getaffinity(0))
        self._load()

    # --- up and down ---

    def up(self, *, with_roles: bool = True, playbook: str = "playbooks/workers.yml") -> Recap | None:
        """Start the containers and provision them; what is up stays as it is. Returns Ansible's recap.

        Raises Refused (no root), Fault (podman), Unreachable or PlaybookFailed; then what was made is taken down
        again, unless it was up before.
        """
        self.podman.prepare()
        image = self.image()
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        with lock_directory(self.directory):
            self._load()
            fresh = not self._id
            try:
                if fresh:
                    self._create(image)
                for worker in self.workers.values():
                    if not worker.answers():
                        self.podman.run("start", worker.container)
                    worker.wait_until_up()
                self._write_known_hosts()
                self._write_inventory()
                if not with_roles:
                    return None
                recap = provision(
                    self.inventory, scratch=self.directory, state_dir=self.state_dir, playbook=playbook, timeout_s=1500
                )
                self._keep_packages()
                return recap
            except BaseException:
                if fresh:
                    self._remove(keep=("ansible",))
                raise

    def down(self) -> None:
        """Remove containers, network, keys and files; the cached base image stays (see :func:`forget_images`)."""
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
    def worker(self) -> ContainerWorker:
        """The first worker."""
        return next(iter(self.workers.values()))

    def environment(self, state_dir: str | None = None) -> dict[str, str]:
        """What ``rch`` needs in its environment to use this lab and nothing else of this machine."""
        return {"RCH_INVENTORY": self.inventory, "RCH_STATE_DIR": state_dir or self.state_dir}

    def common_args(self) -> list[str]:
        """``ansible_ssh_common_args``: the lab's known_hosts and no other configuration."""
        known_hosts = f'UserKnownHostsFile="{self.known_hosts}"'
        return ["-F", "/dev/null", "-o", known_hosts, "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]

    def status(self) -> list[dict[str, object]]:
        """One object per worker: name, address, whether sshd answers."""
        return [
            {
                "name": worker.name,
                "address": f"root@{worker.host}",
                "up": worker.answers(),
                "container": worker.container,
            }
            for worker in self.workers.values()
        ]

    # --- insides ---

    def _record(self) -> str:
        return os.path.join(self.directory, "lab.json")

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self._record(), encoding="utf-8") as file:
            record = json.load(file)
            self._id = record["id"]
            self._slots = record["slots"]
            self.cache_dir = record["cache_dir"]
            self.podman = Podman(self.cache_dir)
            self.workers = {
                name: ContainerWorker(self, name, worker["container"], worker["address"])
                for name, worker in record["workers"].items()
            }

    def _save(self) -> None:
        workers = {
            worker.name: {"container": worker.container, "address": worker.host} for worker in self.workers.values()
        }
        record = {"id": self._id, "slots": self._slots, "cache_dir": self.cache_dir, "workers": workers}
        write_private(self._record(), json.dumps(record, indent=2) + "\n")

    def _network(self) -> str:
        return f"rch-lab-{self._id}"

    def _create(self, image: str) -> None:
        keys = os.path.join(self.directory, "keys")
        shutil.rmtree(keys, ignore_errors=True)
        os.makedirs(keys, mode=0o700)
        for name in ("admin", "rch"):
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
        self._id = secrets.token_hex(4)
        # On disk before anything is there: whatever happens now, down() finds it.
        self._save()
        # Names come from the inventory; a name server of the network would be one more process to look after.
        self.podman.run("network", "create", "--disable-dns", self._network())
        template = "{{range .Subnets}}{{.Subnet}}{{end}}"
        subnet = ipaddress.ip_network(
            self.podman.run("network", "inspect", "--format", template, self._network()).stdout.decode().strip()
        )
        for number in range(1, self._wanted + 1):
            name = f"box{number}"
            container = f"{self._network()}-{name}"
            # Given, not leased: a worker keeps its addresses when it is switched off and on. With another hardware
            # address this machine would talk to the old one until its entry expires (38 s were measured).
            address = str(subnet[10 + number])
            hardware = ":".join(("02", *(self._id[at : at + 2] for at in range(0, 8, 2)), f"{number:02x}"))
            debs = self._lend_packages(name)
            systemd = number <= self._systemd
            self.podman.run(
                *("run", "--detach", "--name", container, "--hostname", name),
                *("--network", self._network(), "--ip", address, "--mac-address", hardware),
                # bubblewrap mounts a fresh /proc, which the kernel allows only where nothing of /proc is covered.
                *("--security-opt", "unmask=ALL"),
                # podman's profile refuses sethostname() to everybody without CAP_SYS_ADMIN outside, also in a user
                # namespace of one's own, and a job carries the caller's host name.
                *("--security-opt", "seccomp=unconfined"),
                *(("--cpus", str(self._cpus)) if self._cpus is not None else ()),
                *("--volume", f"{debs}:/var/cache/apt/archives"),
                *(word for path in TWIN_PLACES if self._twin for word in ("--volume", f"{path}:{path}:ro")),
                *(("--systemd", "always", "--env", "container=podman") if systemd else ()),
                *(image, "/bin/sh", "-c", _INIT_SYSTEMD if systemd else _INIT),
            )
            self.workers[name] = ContainerWorker(self, name, container, address)
            if systemd:
                self.workers[name].up_timeout_s = SYSTEMD_UP_TIMEOUT_S
            self._save()
            with open(f"{self.admin_key}.pub", "rb") as file:
                self.podman.run(
                    *("exec", "--interactive", container, "/bin/sh", "-c"),
                    "umask 077 && mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys",
                    data=file.read(),
                )

    def _write_known_hosts(self) -> None:
        lines = []
        for worker in self.workers.values():
            key = worker.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.decode().split()
            lines.append(f"{worker.host} {key[0]} {key[1]}\n")
        write_private(self.known_hosts, "".join(lines))

    def _write_inventory(self) -> None:
        os.makedirs(self.inventory, mode=0o700, exist_ok=True)
        hosts = {
            worker.name: {
                "ansible_host": worker.host,
                "ansible_user": worker.user,
                "ansible_ssh_private_key_file": self.admin_key,
                "ansible_ssh_common_args": shlex.join(self.common_args()),
                "ansible_python_interpreter": "/usr/bin/python3",
                "rch_ssh_key": self.rch_key,
                "rch_slots": self._slots,
                "rch_description": "container worker on this machine",
                # root needs no sudo, which this machine may lack.
                **({"ansible_become": False, "toolchain_cpp_packages": _TWIN_PACKAGES} if self._twin else {}),
            }
            for worker in self.workers.values()
        }
        write_inventory(self.inventory, hosts, note="Written by the container lab: inv lab.up --containers N")

    def _remove(self, keep: Sequence[str] = ()) -> None:
        stop_daemons(self.directory)
        self._keep_packages()
        if self._id:
            # Also what a killed up() had not yet written down: everything of this lab carries its id in its name.
            listed = self.podman.run("ps", "--all", "--quiet", "--filter", f"name=^{self._network()}-", check=False)
            containers = listed.stdout.decode().split()
            if containers:
                self.podman.run("rm", "--force", "--time", "0", "--volumes", *containers)
            self.podman.run("network", "rm", "--force", self._network(), check=False)
            self.podman.tidy()
        self._id = ""
        self.workers = {}
        for name in os.listdir(self.directory):
            if name not in keep:
                remove_tree(os.path.join(self.directory, name))
        with contextlib.suppress(OSError):  # not empty: something was to be kept
            os.rmdir(self.directory)

    # --- what apt downloads ---

    def _lend_packages(self, name: str) -> str:
        """A download directory of its own for worker *name*, with everything that earlier labs downloaded in it.

        Of its own, because apt locks it: two labs that shared one would refuse each other.
        """
        own = os.path.join(self.directory, "debs", name)
        os.makedirs(os.path.join(own, "partial"), exist_ok=True)
        _link_packages(os.path.join(self.cache_dir, "debs"), own)
        return own

    def _keep_packages(self) -> None:
        """What was downloaded is kept for the next lab: these are the only bytes that a lab leaves behind."""
        kept = os.path.join(self.cache_dir, "debs")
        os.makedirs(kept, exist_ok=True)
        for name in self.workers:
            _link_packages(os.path.join(self.directory, "debs", name), kept)

    # --- the base image ---

    def image(self) -> str:
        """Name of the base image in our storage, made or imported when it is not there yet."""
        digest = hashlib.blake2b(repr((SUITE, BASE_PACKAGES)).encode(), digest_size=6).hexdigest()
        image = f"localhost/rch-worker:{SUITE}-{digest}"
        with lock_directory(self.cache_dir):
            if self.podman.run("image", "exists", image, check=False).returncode == 0:
                return image
            archive = os.path.join(self.cache_dir, f"base-{SUITE}-{digest}.tar")
            if not os.path.exists(archive):
                _bootstrap(archive)
            self.podman.run("import", archive, image, timeout_s=600)
        return image


def _link_packages(source: str, target: str) -> None:
    """Put every package file of *source* that *target* lacks there too: a second name, or a copy on another disk."""
    if not os.path.isdir(source):
        return
    for name in os.listdir(source):
        new = os.path.join(target, name)
        if not name.endswith(".deb") or os.path.exists(new):
            continue
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # another lab did, or took its own away
            try:
                os.link(os.path.join(source, name), new)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                beside = f"{new}.{os.getpid()}"
                shutil.copy2(os.path.join(source, name), beside)
                os.replace(beside, new)


def default_cache_dir() -> str:
    """$RCH_LAB_CACHE, else rch/lab in the user's cache directory."""
    given = os.environ.get("RCH_LAB_CACHE")
    if given:
        return os.path.abspath(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "rch", "lab")


def forget_images(cache_dir: str | None = None) -> None:
    """Remove what container labs keep between runs: image, archive, .deb files. Raises Fault while a lab is up."""
    podman = Podman(cache_dir or default_cache_dir())
    if not os.path.isdir(podman.cache_dir):
        return
    podman.prepare()
    with lock_directory(podman.cache_dir):
        if podman.run("ps", "--all", "--quiet").stdout.strip():
            message = f"a container lab that uses {podman.cache_dir} is still up"
            raise Fault(message, host="here", hint="inv lab.down")
        podman.run("rmi", "--all", "--force", check=False)
        podman.tidy()
        for name in os.listdir(podman.cache_dir):
            remove_tree(os.path.join(podman.cache_dir, name))
    with contextlib.suppress(OSError):
        os.rmdir(podman.cache_dir)


def _bootstrap(archive: str) -> None:
    """Make the base system by debootstrap and pack it into *archive*; about 45 s and 150 MB from the mirror."""
    mirror = _mirror()
    tree = f"{archive}.tree"
    if os.path.isdir(tree):
        remove_tree(tree)
    log = f"{archive}.log"
    try:
        with open(log, "wb") as output:
            _run_logged(
                [
                    program("debootstrap"),
                    *("--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"),
                    *(SUITE, tree, mirror),
                ],
                output,
            )
            for name in os.listdir(os.path.join(tree, "etc/ssh")):
                if name.startswith("ssh_host_"):  # every container makes its own
                    os.unlink(os.path.join(tree, "etc/ssh", name))
            for name in os.listdir(os.path.join(tree, "var/cache/apt/archives")):
                if name.endswith(".deb"):
                    os.unlink(os.path.join(tree, "var/cache/apt/archives", name))
            sources = "".join(f"deb {mirror.rstrip('/')} {suite} main\n" for suite in (SUITE, f"{SUITE}-updates"))
            with open(os.path.join(tree, "etc/apt/sources.list"), "w", encoding="utf-8") as file:
                file.write(sources)
            _run_logged(["tar", "-C", tree, "--one-file-system", "-cf", f"{archive}.new", "."], output)
        os.replace(f"{archive}.new", archive)
        os.unlink(log)
    finally:
        if os.path.isdir(tree):
            remove_tree(tree)


def _run_logged(command: list[str], output: BinaryIO) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=900, check=False
    )
    if done.returncode != 0:
        message = f"{os.path.basename(command[0])} ended with status {done.returncode}"
        raise Fault(message, host="here", hint=f"read {output.name}")


def _mirror() -> str:
    """The Debian mirror that this machine itself uses, else the official one ($RCH_LAB_MIRROR beats both)."""
    given = os.environ.get("RCH_LAB_MIRROR")
    if given:
        return given
    done = (
        subprocess.run(
            ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI)", "Identifier: Packages"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if shutil.which("apt-get")
        else None
    )
    for line in done.stdout.decode("utf-8", "replace").splitlines() if done is not None else ():
        uri = line.split()[-1]
        if uri.startswith("http") and uri.rstrip("/").endswith("/debian"):
            return uri
    return "http://deb.debian.org/debian"


__all__ = ["ContainerLab", "ContainerWorker", "Podman", "default_cache_dir", "forget_images"]
