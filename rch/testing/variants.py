"""A lab's worker under other circumstances: another cache, another key, programs that are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import yaml

from rch.testing.fixtures import RchState
from rch.testing.lab import EmbeddedWorker, write_inventory
from rch.testing.lab_provision import program


def vary(state: RchState, **variables: Any) -> str:
    """Give *state* an inventory of its own, where every worker has *variables* too; its path."""
    with open(os.path.join(state.lab.inventory, "hosts.yml"), encoding="utf-8") as file:
        hosts = yaml.safe_load(file)["all"]["children"]["rch_workers"]["hosts"]
    directory = os.path.join(state.directory, "inventory")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    write_inventory(directory, {name: {**host, **variables} for name, host in hosts.items()}, note="varied by a test")
    state.environment["RCH_INVENTORY"] = directory
    return directory


def own_cache(state: RchState, worker: EmbeddedWorker, directory: str) -> str:
    """Let *state* use *worker* with the cache *directory*, which gets the worker's rch-wkr; its path."""
    for name in ("versions", "bin"):
        shutil.copytree(os.path.join(worker.cache_dir, name), os.path.join(directory, name), symlinks=True)
    vary(state, rch_cache_dir=directory)
    return directory


def stub(path: str, script: str) -> str:
    """An executable file of ``sh``; its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)
    return path


def behind(lab_keys: str, directory: str, command: str) -> str:
    """A new key whose every session on the lab's workers runs *command* instead; its path.

    What was asked for is in ``$SSH_ORIGINAL_COMMAND``. :func:`forget` takes the key away again.
    """
    key = new_key(directory)
    with open(f"{key}.pub", encoding="utf-8") as file:
        public = file.read()
    escaped = command.replace("\\", "\\\\").replace('"', '\\"')
    with open(os.path.join(lab_keys, "authorized_keys"), "a", encoding="utf-8") as file:
        file.write(f'command="{escaped}" {public}')
    return key


def forget(lab_keys: str, key: str) -> None:
    """Undo :func:`behind`."""
    path = os.path.join(lab_keys, "authorized_keys")
    with open(f"{key}.pub", encoding="utf-8") as file:
        public = file.read()
    with open(path, encoding="utf-8") as file:
        kept = [line for line in file if public not in line]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(kept)


def new_key(directory: str) -> str:
    """A key that no worker knows; its path."""
    path = os.path.join(directory, "another-key")
    words = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "rch test", "-f", path]
    subprocess.run(words, stdin=subprocess.DEVNULL, check=True, timeout=30)
    return path


def path_without(directory: str, *programs: str) -> str:
    """A directory for PATH with every program of this machine but *programs*."""
    os.makedirs(directory)
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            link = os.path.join(directory, name)
            if name not in programs and not os.path.lexists(link):
                os.symlink(os.path.join(place, name), link)
    return directory
