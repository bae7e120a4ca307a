"""The programs that `rch hook install` puts into ``<state>/hooks``: the hook itself, the launcher, Claude's PATH.

The hook is compiled where there is a compiler (0.9 ms a call), else it is an sh script that starts Python for a line
with a build word (docs/adr/0008-the-hook-is-compiled.md).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined

from rch.client_paths import SHIM_MARK
from rch.intercept.argv import KEYWORDS

COMPILE_S = 60.0
"""Seconds the compiler may take."""


@dataclass(frozen=True)
class Setting:
    """This installation.

    state:        the state directory. named: it was named by RCH_STATE_DIR, so the programs name it too.
    python:       the interpreter that has rch's dependencies.
    http_port:    where rchd answers Claude's http hook; 0: Claude gets the hook as a command.
    """

    state: str
    python: str
    named: bool = False
    http_port: int = 0

    @property
    def directory(self) -> str:
        return self.state + "/hooks"

    @property
    def hook(self) -> str:
        return self.directory + "/rch-hook"

    @property
    def claude_path(self) -> str:
        return self.directory + "/claude-path"

    @property
    def launcher(self) -> str:
        return self.directory + "/rch"

    @property
    def shims(self) -> str:
        return self.state + "/shims"


def install(setting: Setting, *, native: bool | None = None) -> str:
    """Write the programs; "native" or "sh", whichever the hook is. Twice changes nothing but the hook's age.

    native: False writes the sh hook even where a compiler is; True raises OSError where none is.
    """
    sessions = setting.directory + "/sessions"
    for place in (setting.state, setting.directory, sessions):
        os.makedirs(place, mode=0o700, exist_ok=True)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    words = {
        "python": shlex.quote(setting.python),
        "hook": shlex.quote(package + "/agents/hook.py"),
        "client": shlex.quote(package + "/client.py"),
        "state": shlex.quote(setting.state) if setting.named else "",
        "words": KEYWORDS,
        "shims": shlex.quote(setting.shims),
        "mark": SHIM_MARK,
        "sessions": shlex.quote(sessions),
        "line": shlex.quote(path_line(setting.shims)),
    }
    put_file(setting.launcher, render("launcher.sh.j2", words), 0o700)
    put_file(setting.claude_path, render("claude_path.sh.j2", words), 0o700)
    if native is not False and _compile(setting, package):
        return "native"
    if native:
        raise OSError("no C compiler made the hook")
    put_file(setting.hook, render("hook.sh.j2", words), 0o700)
    return "sh"


def uninstall(setting: Setting) -> bool:
    """Take the programs away; False if there were none."""
    if not os.path.isdir(setting.directory):
        return False
    shutil.rmtree(setting.directory)
    return True


def kind(setting: Setting) -> str:
    """ "native", "sh", or "" where no hook is."""
    try:
        with open(setting.hook, "rb") as file:
            return "native" if file.read(4) == b"\x7fELF" else "sh"
    except OSError:
        return ""


def path_line(shims: str) -> str:
    """One line of shell that puts *shims* first on PATH, at most once."""
    quoted = shlex.quote(shims)
    return f'case ":$PATH:" in *:{quoted}:*) ;; *) export PATH={quoted}:"$PATH" ;; esac'


def render(name: str, words: Mapping[str, object]) -> str:
    """A template of this package as text."""
    return _environment().from_string(_source(name)).render(words)


def put_file(path: str, text: str, mode: int) -> bool:
    """Put *text* there by rename; False if it was there already."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text and os.stat(path).st_mode & 0o777 == mode:
                return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    beside = f"{path}.{os.getpid()}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(text)
    os.rename(beside, path)
    return True


def _compile(setting: Setting, package: str) -> bool:
    """Make the hook from hook.c, static if that works; False where no compiler does it."""
    from rch.client_paths import path_without_shims

    path = path_without_shims(os.environ.get("PATH", ""))
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name, path=path))), None)
    if compiler is None:
        return False
    beside = f"{setting.hook}.{os.getpid()}.new"
    defines = (
        f"-DRCH_WORDS={','.join(map(_c_text, KEYWORDS))}",
        f"-DRCH_STATE={_c_text(setting.state if setting.named else '')}",
        f"-DRCH_PYTHON={_c_text(setting.python)}",
        f"-DRCH_HOOK={_c_text(package + '/agents/hook.py')}",
    )
    for static in (("-static",), ()):
        if _runs([compiler, "-O2", "-w", *static, *defines, "-o", beside, package + "/agents/hook.c"], path):
            os.chmod(beside, 0o700)
            if _runs([beside], path):
                os.rename(beside, setting.hook)
                return True
    if os.path.exists(beside):
        os.unlink(beside)
    return False


def _runs(words: Sequence[str], path: str) -> bool:
    environ = {**os.environ, "PATH": path, "RCH_BYPASS": "1"}
    try:
        done = subprocess.run(
            words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMPILE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _c_text(text: str) -> str:
    """*text* as a C string literal."""
    plain = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in os.fsencode(text))
    return f'"{plain}"'


@cache
def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - sh


def _source(name: str) -> str:
    return resources.files("rch.agents").joinpath("templates", name).read_text("utf-8")
