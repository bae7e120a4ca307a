"""The argv of bubblewrap for one job: pure, from the spec and what this machine's root directory looks like."""

from __future__ import annotations

import os
import pwd
from typing import Callable, List, NamedTuple, Optional, Sequence

from rch.worker.spec import Place, Spec

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt")
"""Directories of the worker that a job sees, read-only."""

_SECRET_FILES = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd")
_SECRET_DIRECTORIES = ("/etc/ssl/private", "/etc/sudoers.d")


def _own_home() -> str:
    """The account's home directory, if it is its own; "" for accounts that live in a directory of the system."""
    try:
        home = os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir)
        return home if os.stat(home).st_uid == os.geteuid() != 0 else ""
    except (KeyError, OSError):
        return ""


class Host(NamedTuple):
    """What has to be known of the worker's file system. Replaced in tests."""

    exists: Callable[[str], bool] = os.path.exists
    is_directory: Callable[[str], bool] = os.path.isdir
    link_target: Callable[[str], Optional[str]] = lambda path: os.readlink(path) if os.path.islink(path) else None
    names: Callable[[str], Sequence[str]] = lambda path: sorted(os.listdir(path))
    real: Callable[[str], str] = os.path.realpath
    privileged: bool = os.geteuid() == 0
    home: str = _own_home()


class Mount(NamedTuple):
    """One bind mount of the job."""

    path: str
    source: str
    writable: bool
    is_file: bool = False


def job_mounts(spec: Spec, job: str, shared: Sequence[Place], *, fetching: bool) -> List[Mount]:
    """Everything of the job's own, parents before what lies in them.

    job: the job's directory. shared: the shared caches with their place below CARGO_HOME and the like.
    fetching: the fetch step, which runs no code of the project: caches writable. The project is writable in it too, for
    it may have to write Cargo.lock.
    """
    mounts: List[Mount] = []
    if spec.home is not None and spec.home != "/":
        mounts.append(Mount(spec.home, os.path.join(job, "home"), writable=True))
    for number, path in enumerate(temporary_directories(spec)):
        mounts.append(Mount(path, os.path.join(job, "tmp", str(number)), writable=True))
    if spec.cargo_home is not None:
        mounts.append(Mount(spec.cargo_home, os.path.join(job, "cargo"), writable=True))
    mounts += [Mount(place.path, place.source, place.writable) for place in spec.roots]
    mounts += [Mount(place.path, place.source, place.writable) for place in spec.binds]
    mounts += [Mount(place.path, place.source, fetching) for place in shared]
    mounts += [
        Mount(path, os.path.join(job, "files", str(number)), writable=False, is_file=True)
        for number, (path, _, _) in enumerate(spec.files)
    ]
    # A later mount hides what lies below it, so the shorter path comes first; sort() keeps the order of equals.
    mounts.sort(key=lambda mount: mount.path.count("/") if mount.path != "/" else 0)
    return mounts


def temporary_directories(spec: Spec) -> List[str]:
    """The caller's temporary directories; /tmp always is one. Those inside a root belong to the root."""
    wanted = [path for path in spec.tmpdirs if not any(_below(path, place.path) for place in spec.roots)]
    return list(dict.fromkeys(["/tmp", *wanted]))


def bwrap_argv(spec: Spec, job: str, cache: str, mounts: Sequence[Mount], host: Host) -> List[str]:
    """The options of bubblewrap, without the program and the command."""
    argv = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not spec.network:
        argv.append("--unshare-net")
    argv += ["--uid", str(spec.uid), "--gid", str(spec.gid), "--hostname", spec.hostname]
    argv += ["--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    if spec.uid == 0:
        # root here may read and write its own files whatever their mode; the kernel honours this only for inodes of the
        # one mapped account, and read-only mounts stay read-only.
        for capability in ("CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_CHOWN", "CAP_FSETID"):
            argv += ["--cap-add", capability]
    missing = [mount.path for mount in mounts if not host.exists(mount.path)]
    for name in SYSTEM:
        path = "/" + name
        target = host.link_target(path)
        if target is not None:
            argv += ["--symlink", target, path]
        elif host.is_directory(path):
            argv += _system(path, [place for place in missing if _below(place, path)], host)
    argv += _etc(job, host, spec.network)
    argv += ["--proc", "/proc", "--dev", "/dev", "--dir", "/run", "--dir", "/var"]
    for place in (host.home, cache):  # of the account, where it lives in a directory that jobs see
        if any(_below(place, "/" + name) for name in SYSTEM):
            argv += ["--tmpfs", place]
    for mount in mounts:
        argv += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.path]
    argv += ["--remount-ro", "/"]
    return argv


def _system(path: str, wanted: Sequence[str], host: Host) -> List[str]:
    """Bind a system directory; where a mount point is *wanted* inside that is not there, its parents are rebuilt.

    A read-only bind has no room for a new mount point (lessons PM-08), and the worker itself must not get one.
    """
    if not wanted:
        return ["--ro-bind", path, path]
    argv = ["--dir", path]
    for name in host.names(path):
        child = path + "/" + name
        target = host.link_target(child)
        if target is not None:
            argv += ["--symlink", target, child]
        elif host.is_directory(child):
            argv += _system(child, [place for place in wanted if _below(place, child)], host)
        else:
            argv += ["--ro-bind-try", child, child]
    return argv


def _etc(job: str, host: Host, network: bool) -> List[str]:
    """The files of /etc that speak of the caller, and what must not be readable where rch-wkr runs as root."""
    argv: List[str] = []
    for name in ("passwd", "group", "hostname", "hosts"):
        if host.exists("/etc/" + name):
            argv += ["--ro-bind", os.path.join(job, "etc", name), "/etc/" + name]
    if host.privileged:
        keys = [n for n in host.names("/etc/ssh") if n.endswith("_key")] if host.is_directory("/etc/ssh") else []
        for path in [*_SECRET_FILES, *("/etc/ssh/" + name for name in keys)]:
            if host.exists(path):
                argv += ["--ro-bind", "/dev/null", path]
        for path in _SECRET_DIRECTORIES:
            if host.is_directory(path):
                argv += ["--tmpfs", path]
    if network:
        # Often a link into /run, which the job does not see: without it no name resolves.
        real = host.real("/etc/resolv.conf")
        if not _below(real, "/etc") and host.exists(real):
            argv += ["--ro-bind", real, real]
    return argv


def passwd_lines(existing: str, name: str, uid: int, gid: int, home: str) -> str:
    """The worker's passwd with the caller in it, and nobody else of that name or number (lessons PM-09)."""
    place = "/" if ":" in home or "\n" in home else home
    return _replace(existing, name, uid, "%s:x:%d:%d::%s:/bin/sh" % (name, uid, gid, place))


def group_lines(existing: str, name: str, number: int) -> str:
    """The worker's group file likewise."""
    return _replace(existing, name, number, "%s:x:%d:" % (name, number))


def _replace(existing: str, name: str, number: int, line: str) -> str:
    kept = []
    for old in existing.splitlines():
        fields = old.split(":")
        if len(fields) >= 3 and fields[0] != name and fields[2] != str(number):
            kept.append(old)
    return "\n".join([line, *kept]) + "\n"


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
