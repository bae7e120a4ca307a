"""The wheel carries playbooks, plugins and roles as the collection ``rch.fleet``; Ansible finds it on ``sys.path``.

A hook and no ``force-include`` table: an editable installation must not get copies, which would be stale at once.
"""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "ansible_collections/rch/fleet"
FILES = ("galaxy.yml", "meta/runtime.yml", "ansible.cfg", "README.md", "CHANGELOG.md", "LICENSE")
LEFT_OUT = {"playbooks/lab.yml"}  # the lab is the checkout's


class CollectionHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        found = list(FILES)
        for folder in ("playbooks", "plugins", "roles"):
            for directory, _, names in os.walk(os.path.join(self.root, folder)):
                inside = os.path.relpath(directory, self.root)
                found += [f"{inside}/{name}" for name in names if not name.endswith((".pyc", ".retry"))]
        for name in sorted(set(found) - LEFT_OUT):
            build_data["force_include"][os.path.join(self.root, name)] = f"{TARGET}/{name}"
