"""A file, directory or link: one look by the shell, and a module only where it is not as it should be."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# Prints the kind, then mode, owner and group, then a link's target or a file's hash.
LOOK = """\
if [ -L "$p" ]; then echo link; elif [ -d "$p" ]; then echo directory; elif [ -f "$p" ]; then echo file
elif [ -e "$p" ]; then echo other; else echo absent; fi
stat -c '%a %U %G' -- "$p" 2>/dev/null || echo
if [ -L "$p" ]; then readlink -- "$p"; elif [ -f "$p" ]; then sha256sum 2>/dev/null <"$p"; fi
:"""

COMPARED = frozenset({"path", "state", "content", "src", "owner", "group", "mode", "follow", "force", "validate"})
"""What a look can answer, or what only matters once something has to be done."""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """See plugins/modules/quick_file.py for what it takes and returns."""

    TRANSFERS_FILES = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a task gets back; where something had to be done, what ansible.builtin.file or copy said."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = dict(self._task.args)
        unknown = sorted(set(given) - COMPARED)
        if unknown:
            raise AnsibleActionFail(f"quick_file does not know {', '.join(unknown)}")
        path, state = given.get("path"), given.get("state", "file")
        if not path or state not in ("file", "directory", "link", "absent"):
            raise AnsibleActionFail(f"quick_file needs a path and a state it knows, got {path!r} and {state!r}")
        if state == "file" and ("content" in given) == ("src" in given):
            raise AnsibleActionFail("quick_file needs either content or src for a file")
        if self._is_as_wanted(given, state):
            return {**result, "changed": False, "path": path, "state": state}
        if state != "file":
            name = "ansible.builtin.file"
            return {**result, **self._execute_module(module_name=name, module_args=given, task_vars=task_vars)}
        task = self._task.copy()
        task.args = {"dest": path, **{name: value for name, value in given.items() if name not in ("path", "state")}}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return {**result, **copy.run(task_vars=task_vars)}

    def _is_as_wanted(self, given: dict[str, Any], state: str) -> bool:
        """Whether a look shows that nothing has to be done; in doubt False, and the module decides."""
        done = self._low_level_execute_command(f"p={shlex.quote(given['path'])}\n{LOOK}", in_data=b"\n")
        lines = done.get("stdout", "").splitlines()
        if done["rc"] != 0 or len(lines) < 2 or lines[0] != state:
            return False
        if state == "absent":
            return True
        mode, owner, group = (*lines[1].split(), "", "", "")[:3]
        if any(given.get(name) not in (None, found) for name, found in (("owner", owner), ("group", group))):
            return False
        more = lines[2] if len(lines) > 2 else ""
        if state == "link":
            return more == given.get("src") and not boolean(given.get("follow", True))
        if given.get("mode") is not None and not _same_mode(given["mode"], mode):
            return False
        return state == "directory" or more.split(" ")[0] == self._wanted_hash(given)

    def _wanted_hash(self, given: dict[str, Any]) -> str:
        content = given.get("content")
        if content is not None:
            return hashlib.sha256(content.encode()).hexdigest() if isinstance(content, str) else "not a text"
        with open(self._find_needle("files", given["src"]), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _same_mode(wanted: object, found: str) -> bool:
    """Whether *wanted*, octal digits, is what stat printed; a symbolic mode is left to the module."""
    try:
        return int(str(wanted), 8) == int(found, 8)
    except ValueError:
        return False
