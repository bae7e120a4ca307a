"""Write README.md of every role from its argument specs and defaults: ``python docs/role_readmes.py [--check]``.

The specs give names, types and short descriptions, the defaults give values and the paragraph above each.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import yaml

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROLES = os.path.join(CHECKOUT, "roles")


def load(*parts: str) -> Any:
    """A YAML file of a role, {} if it is not there."""
    path = os.path.join(ROLES, *parts)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return yaml.safe_load(stream) or {}


def paragraphs(role: str) -> dict[str, tuple[str, str]]:
    """Of each variable in defaults/main.yml, commented out or not: the paragraph above it and its value as written."""
    with open(os.path.join(ROLES, role, "defaults", "main.yml"), encoding="utf-8") as stream:
        blocks = stream.read().removeprefix("---\n").strip().split("\n\n")
    found = {}
    for block in blocks:
        comment: list[str] = []
        for line in block.splitlines():
            setting = re.match(rf"(# )?({role}_\w+):\s*(.*)", line)
            if setting:
                value = "" if setting[1] else setting[3].split(" #")[0].strip()
                found[setting[2]] = (plain(comment), value)
            elif line.startswith("#"):
                comment.append(line.removeprefix("#").removeprefix(" "))
    return found


def plain(lines: list[str]) -> str:
    """Comment lines as Markdown: a table of choices keeps its lines, a paragraph is joined."""
    if any(line.startswith("  ") for line in lines):
        return "<br>".join(re.sub(r"^  (\w+) +", r"`\1`: ", line) for line in lines)
    return " ".join(lines)


def markup(text: str) -> str:
    """Ansible's C(x), O(x) as Markdown."""
    return re.sub(r"\b[COV]\(([^)]*)\)", r"`\1`", text)


def readme(role: str) -> str:
    """The text of roles/<role>/README.md."""
    specs = load(role, "meta", "argument_specs.yml")["argument_specs"]
    main = specs["main"]
    about = paragraphs(role)
    lines = [
        "<!-- Written by docs/role_readmes.py from meta/argument_specs.yml and defaults/main.yml. -->",
        "",
        f"# {role}",
        "",
        main["short_description"] + ".",
        "",
    ]
    for text in main["description"]:
        lines += [markup(text), ""]
    lines += ["## Variables", "", "| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in main["options"].items():
        text, value = about[name]
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        shown = "required" if option.get("required") else f"`{value}`"
        meaning = text or markup(option["description"])
        lines.append("| " + " | ".join(one.replace("|", "\\|") for one in (f"`{name}`", kind, shown, meaning)) + " |")
    entries = [name for name in specs if name != "main"]
    if entries:
        lines += ["", "## Other entry points", ""]
        lines += [f"* `{name}`: {specs[name]['short_description']}." for name in entries]
    tags = sorted(set(re.findall(rf"\b{role}(?:_(?:install|configure|run))?\b", task_text(role))))
    if tags:
        lines += ["", "## Tags", "", ", ".join(f"`{tag}`" for tag in tags) + ": each is a complete purpose."]
    return "\n".join(lines) + "\n"


def task_text(role: str) -> str:
    """The lines with tags in tasks/main.yml."""
    with open(os.path.join(ROLES, role, "tasks", "main.yml"), encoding="utf-8") as stream:
        return "".join(line for line in stream if "tags:" in line)


def main() -> int:
    """Write all, or with --check name those that are stale; 1 if there are any."""
    stale = []
    for role in sorted(os.listdir(ROLES)):
        path = os.path.join(ROLES, role, "README.md")
        text = readme(role)
        old = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                old = stream.read()
        if old != text:
            stale.append(path)
            if "--check" not in sys.argv:
                with open(path, "w", encoding="utf-8") as stream:
                    stream.write(text)
    for path in stale:
        print(os.path.relpath(path, CHECKOUT))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
