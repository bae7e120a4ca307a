"""A command without a module: its words go over the connection as they are, and no Python starts there."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """See plugins/modules/quick_command.py for what it takes and returns."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"argv", "chdir", "stdin"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a task gets back; the keys are those of ansible.builtin.command."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        argv = self._task.args.get("argv")
        if not isinstance(argv, list) or not argv:
            raise AnsibleActionFail("argv must be a list of at least one word")
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True, "msg": "Command would have run if not in check mode"}
        words = [str(word) for word in argv]
        command = f"{self._compute_environment_string()} {shlex.join(words)}".strip()
        stdin = self._task.args.get("stdin")
        if stdin is None:
            command += " </dev/null"
        chdir = self._task.args.get("chdir")
        done = self._low_level_execute_command(
            command,
            # Something has to be sent: without it Ansible asks ssh for a terminal, which mixes both outputs.
            in_data=f"{stdin or ''}\n".encode(),
            chdir=shlex.quote(chdir) if chdir else None,
        )
        for name in ("stdout", "stderr"):
            text = done.get(name, "").rstrip("\r\n")
            result[name] = text
            result[f"{name}_lines"] = text.splitlines()
        result.update(rc=done["rc"], cmd=words, changed=True)
        if done["rc"] != 0:
            result.update(failed=True, msg="non-zero return code")
        return result
