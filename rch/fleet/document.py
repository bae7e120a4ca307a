"""The table of inventory variables in docs/fleet.md, made from the schema: ``python -m rch.fleet.document``."""

from __future__ import annotations

import dataclasses
import os
import re

from rch.fleet.model import Declared
from rch.fleet.variables import VARIABLES

BEGIN, END = "<!-- variables: made by python -m rch.fleet.document -->", "<!-- end of variables -->"

EFFECTS = {
    "rch_slots": "CPU slots that jobs may take together; without it `rch_slots_per_core` times the CPUs",
    "rch_slots_per_core": "slots per CPU where `rch_slots` is not given",
    "rch_priority": "higher is preferred",
    "rch_enabled": "false: known, but given no jobs",
    "rch_cache_dir": "trees, jobs and toolchains there; on a disk, never on tmpfs",
    "rch_executor": "how jobs get there; without it as `ansible_connection` says",
    "rch_user": "account that runs the jobs, made by the playbook; `rch_embedded`: the one that is there",
    "rch_ssh_key": "key with which rchd logs in; without it one that the playbook makes",
    "rch_tags": "tags beside the groups",
    "rch_session": "name of the session in which jobs can be watched",
    "rch_workdir": "directory for commands that have no project",
    "rch_platform": "what the machine is, where facts cannot tell",
    "rch_description": "shown in listings",
    "rch_addr": "address under which the worker is named",
    "rch_tunnel": "whether tunnels to it are made",
    "rch_embedded": "no root there: nothing is installed, jobs run as who we log in as",
    "ansible_host": "address; without it the name, which ssh_config may know",
    "ansible_port": "port of sshd",
    "ansible_user": "the administrator: root or one who may sudo",
    "ansible_connection": "connection plugin; `local` is this machine",
    "ansible_python_interpreter": "Python of Ansible and of rch-wkr there, 3.9 or newer",
    "ansible_ssh_private_key_file": "the administrator's key",
    "ansible_ssh_common_args": "more words for ssh, such as a jump host; rchd uses the settings among them",
    "ansible_ssh_extra_args": "the same, for ssh alone",
    "ansible_timeout": "seconds to connect",
    "ansible_ssh_timeout": "the same, for ssh alone; it is the stronger",
}
"""What each variable does, in words; a test holds it complete."""


def table() -> str:
    """The variables as rows: name, literal, default, effect."""
    defaults = {field.name: field.default for field in dataclasses.fields(Declared)}
    rows = ["| variable | value | default | effect |", "|---|---|---|---|"]
    for name, variable in VARIABLES.items():
        default = defaults.get(name.removeprefix("rch_")) if name.startswith("rch_") else None
        shown = "" if default in (None, "", ()) or default is dataclasses.MISSING else _literal(default)
        rows.append(f"| `{name}` | {variable.what.replace('|', chr(92) + '|')} | {shown} | {EFFECTS[name]} |")
    return "\n".join(rows)


def renewed(text: str) -> str:
    """*text*, the page, with the table as it is now."""
    made = f"{BEGIN}\n\n{table()}\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: made, text, flags=re.DOTALL)


def _literal(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Renew the page of a checkout."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(top, "docs", "fleet.md")
    with open(path, encoding="utf-8") as stream:
        text = renewed(stream.read())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


if __name__ == "__main__":
    main()
