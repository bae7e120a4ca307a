"""One shim as text: rendered once, at installation. Pure but for reading the template."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template

from rch.client_paths import SHIM_MARK
from rch.shims.judge import JUDGES, PARENTS

SAFE_TOOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")


@dataclass(frozen=True)
class Setting:
    """What a shim has to know of this installation.

    python, client: absolute paths; state: the state directory where it was named by RCH_STATE_DIR, else "".
    """

    python: str
    client: str
    state: str = ""


def render(tool: str, toolchain: str, setting: Setting) -> str:
    """The shim of the program *tool*; *toolchain* says whose rules judge its words.

    Raises ValueError for a tool that is no plain program name, KeyError for an unknown toolchain.
    """
    if not SAFE_TOOL.match(tool):
        raise ValueError(f"no name of a program: {tool!r}")
    return _template().render(
        tool=tool,
        judge=JUDGES[toolchain],
        parents=PARENTS,
        mark=SHIM_MARK,
        python=shlex.quote(setting.python),
        client=shlex.quote(setting.client),
        state=shlex.quote(setting.state) if setting.state else "",
    )


def own_setting(environ: dict[str, str], python: str) -> Setting:
    """The Setting of this copy of rch; *python* is the interpreter that has its dependencies."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return Setting(usual_name(python), os.path.join(package, "client.py"), environ.get("RCH_STATE_DIR", ""))


def usual_name(python: str) -> str:
    """*python* as its directory's ``python3``, where that is the same: pip's scripts are started by that name.

    An environment has up to three names for one interpreter; what is written down must not depend on which one ran.
    """
    usual = os.path.join(os.path.dirname(python), "python3")
    try:
        return usual if os.path.samefile(usual, python) else python
    except OSError:
        return python


@cache
def _template() -> Template:
    text = resources.files("rch.shims").joinpath("templates/shim.sh.j2").read_text("utf-8")
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - sh
    return made.from_string(text)
