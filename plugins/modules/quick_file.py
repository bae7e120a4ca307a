# What ansible-doc shows; the work is done by plugins/action/quick_file.py, here, not on the host.
DOCUMENTATION = r"""
---
module: quick_file
short_description: Makes a file, directory or link, and sends a module only where it is not as it should be
description:
  - Looks at the path with one line of shell. Where kind, owner, group, mode and content are as wanted, that is all, and
    costs a tenth of the time of a module.
  - Otherwise P(ansible.builtin.copy#module) (for O(state=file)) or P(ansible.builtin.file#module) does the work, with
    its own check mode and diff. What a look cannot compare (a symbolic mode, an owner given as a number) is left to
    them too.
options:
  path:
    description: The file, directory or link.
    type: path
    required: true
  state:
    description: What it should be; V(file) has O(content) or O(src).
    type: str
    choices: [file, directory, link, absent]
    default: file
  content:
    description: The text that the file should hold.
    type: str
  src:
    description: For a file, one of the controller with the content; for a link, what it points at.
    type: path
  owner:
    description: Name of its owner.
    type: str
  group:
    description: Name of its group.
    type: str
  mode:
    description: Its mode, as octal digits in quotes; nothing is said of a link's.
    type: raw
  follow:
    description: As of the module that does the work; a link is looked at only with V(false).
    type: bool
  force:
    description: As of the module that does the work.
    type: bool
  validate:
    description: As of P(ansible.builtin.copy#module); asked before a new content is put in place.
    type: str
attributes:
  check_mode:
    description: Nothing is changed; says whether something would be.
    support: full
  diff_mode:
    description: Of what is changed.
    support: full
author:
  - The rch authors
"""

EXAMPLES = r"""
- name: Write the limits
  rch.fleet.quick_file:
    path: /etc/security/limits.d/rch.conf
    content: "{{ lookup('ansible.builtin.template', 'limits.conf.j2') }}"
    owner: root
    group: root
    mode: "0644"
"""

RETURN = r"""
path:
  description: The path.
  returned: always
  type: str
state:
  description: What it is, when nothing had to be done.
  returned: when nothing had to be done
  type: str
"""
