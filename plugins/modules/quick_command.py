# What ansible-doc shows; the work is done by plugins/action/quick_command.py, here, not on the host.
DOCUMENTATION = r"""
---
module: quick_command
short_description: Runs a command without sending a module
description:
  - Does what P(ansible.builtin.command#module) does for a list of words, over the connection itself. No module is sent
    and no Python starts on the host, so it costs a tenth of the time there, and the host needs no Python.
  - For questions that a play asks on every run, and for commands on the controller (C(delegate_to=localhost)).
  - Both outputs stay apart, also with C(become). Without O(stdin) the command reads nothing.
options:
  argv:
    description: The program and its arguments; no shell looks at them.
    type: list
    elements: str
    required: true
  chdir:
    description: Directory in which it runs.
    type: path
  stdin:
    description: What it reads, with a newline added.
    type: str
attributes:
  check_mode:
    description: Skipped, unless the task says C(check_mode=false).
    support: partial
notes:
  - The exit status 255 of a command over ssh means for Ansible that the host is unreachable.
author:
  - The rch authors
"""

EXAMPLES = r"""
- name: Ask who we are there
  rch.fleet.quick_command:
    argv: [id, -u]
  register: there
  check_mode: false
  changed_when: false
"""

RETURN = r"""
rc:
  description: Exit status; another than 0 fails the task.
  returned: when it ran
  type: int
stdout:
  description: Standard output without the newlines at its end; also as V(stdout_lines).
  returned: when it ran
  type: str
stderr:
  description: Standard error, in the same way.
  returned: when it ran
  type: str
cmd:
  description: The words.
  returned: when it ran
  type: list
"""
