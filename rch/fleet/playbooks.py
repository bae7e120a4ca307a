"""Where the playbooks lie, and what Ansible needs around it to run them from anywhere.

A checkout has them at its top; an installed wheel carries the same files as the collection ``rch.fleet``, beside the
package. Everything that Ansible writes on this machine goes below one directory of the state.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from rch.errors import UsageError
from rch.paths import AbsPath

COLLECTION = ("ansible_collections", "rch", "fleet")
"""Below the directory that holds the package; Ansible looks for collections on ``sys.path``."""

CONTROL_PATH_ROOM = 60
"""Bytes that a control directory's path may have: Ansible adds a name of ten, OpenSSH seventeen, of 104 in all."""

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def collection_root() -> AbsPath:
    """The directory with ``playbooks``, ``roles`` and ``ansible.cfg``: the installed collection, else the checkout."""
    installed = os.path.join(_PACKAGES, *COLLECTION)
    return AbsPath(installed if os.path.isdir(os.path.join(installed, "playbooks")) else _PACKAGES)


def playbook(name: str, root: str = "") -> AbsPath:
    """Path of playbook *name* (``site``, ``upgrade``, …) in *root* or :func:`collection_root`.

    Raises UsageError when this installation has no such playbook.
    """
    top = root or collection_root()
    path = os.path.join(top, "playbooks", name + ".yml")
    if not os.path.isfile(path):
        raise UsageError(f"{top} has no playbook {name}", what=name, hint="pip install --force-reinstall rch")
    return AbsPath(path)


def known_tags(root: str = "") -> tuple[str, ...]:
    """The tags of the roles, one per purpose: ``rch_worker``, ``rch_worker_install``, …"""
    found: set[str] = set()
    for path in glob.glob(os.path.join(glob.escape(root or collection_root()), "roles", "*", "tasks", "main.yml")):
        with open(path, encoding="utf-8") as stream:
            for words in re.findall(r"\btags: \[([^\]]*)\]", stream.read()):
                found.update(word.strip() for word in words.split(","))
    return tuple(sorted(found - {"always", "never"}))


def ansible_config(root: str = "") -> str:
    """Path of the ansible.cfg that belongs to the playbooks; never one that happens to lie in a working directory."""
    return os.path.join(root or collection_root(), "ansible.cfg")


def ansible_environment(home: str, root: str = "") -> dict[str, str]:
    """What ansible-playbook needs in its environment so that it writes below *home* alone, and finds our programs."""
    # Programs that the roles call here (ssh-keygen, rsync) come from PATH, as do Ansible's own helpers.
    path = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {
        "ANSIBLE_CONFIG": ansible_config(root),
        "ANSIBLE_HOME": home,
        "ANSIBLE_LOCAL_TEMP": os.path.join(home, "tmp"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": os.path.join(home, "facts"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": path,
    }


@contextlib.contextmanager
def control_directory(home: str) -> Iterator[str]:
    """A directory for ssh's control sockets, below *home* where that is short enough; its masters end with it."""
    wanted = os.path.join(home, "cp")
    temporary = len(os.fsencode(wanted)) > CONTROL_PATH_ROOM
    if temporary:
        wanted = tempfile.mkdtemp(prefix="rch-cp-")
    else:
        os.makedirs(wanted, mode=0o700, exist_ok=True)
    try:
        yield wanted
    finally:
        close_masters(wanted)
        if temporary:
            shutil.rmtree(wanted, ignore_errors=True)


def close_masters(control: str) -> None:
    """End the OpenSSH masters that Ansible left listening in *control*."""
    if not os.path.isdir(control):
        return
    for name in os.listdir(control):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={os.path.join(control, name)}", "master"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=False,
            )
