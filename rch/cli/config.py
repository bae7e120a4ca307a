"""``rch config``: look at the configuration, change it, trust a project's file."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile

import click

from rch.cli.asking import confirm
from rch.cli.command import RchGroup, output
from rch.cli.setting import here, load
from rch.config import trust as trust_store
from rch.config.document import starting_file, toml_value
from rch.config.edit import set_aside, set_value, unset_value, value_from_text, write_checked
from rch.config.keys import dotted, row_of, split_dotted, unknown_key
from rch.config.layers import Layer, LayerFile, inspect_layer, read_layer
from rch.config.merged import PROJECT_FILE, find_project_root
from rch.config.places import SYSTEM_FILE, Places, places
from rch.errors import ConfigError, Fault, RchError, UsageError
from rch.paths import AbsPath

USER_OPTION = click.option("--user", is_flag=True, help="The user's file instead of the project's.")


@click.group(cls=RchGroup)
def config() -> None:
    """Show and change the configuration."""


@config.command()
@click.option("--changed", is_flag=True, help="Only what is not the default.")
def show(*, changed: bool) -> None:
    """Show every key with its value and where the value comes from.

    With --json an array of {"key", "value", "origin", "file", "line"}; "inert" holds a project's value that has no
    effect because the file is not trusted.
    """
    said = output()
    found = load()
    rows = []
    for name, value, origin in found.rows():
        if changed and origin.layer is Layer.DEFAULT and not origin.untrusted:
            continue
        row = {"key": name, "value": value, "origin": origin.word, "file": origin.place, "line": origin.line}
        if origin.untrusted:
            row["inert"] = origin.inert
        rows.append((row, origin))
    if said.json:
        said.document([row for row, _ in rows])
        return
    for row, origin in rows:
        value = "(unset)" if row["value"] is None else toml_value(row["value"])
        inert = f", {toml_value(origin.inert)} has no effect" if origin.untrusted else ""
        said.line(f"{row['key']} = {value}  # {origin.shown()}{inert}")
    if found.untrusted:
        said.say(f"{found.project_file} is not trusted; next: rch config trust")


@config.command()
@click.argument("key")
def get(*, key: str) -> None:
    """Print the value of KEY."""
    said = output()
    found = load()
    value = found.value(key)
    origin = found.origin(key)
    if said.json:
        said.document({"key": key, "value": value, "origin": origin.word, "file": origin.place, "line": origin.line})
        return
    said.line(value if isinstance(value, str) else "" if value is None else toml_value(value))
    if said.verbose:
        said.say(origin.shown())


@config.command("set", context_settings={"ignore_unknown_options": True})  # -5 is a value
@click.argument("key")
@click.argument("value")
@USER_OPTION
def set_(*, key: str, value: str, user: bool) -> None:
    """Set KEY to VALUE in the project's file; nothing is written when the result would be wrong.

    VALUE is TOML (8, true, ["a", "b"]), else a plain string, else a list of names with commas between.
    """
    said = output()
    path, typed = value_from_text(key, value)
    _check_place(key, path, value, user=user)
    file, layer = _file(user=user)
    set_value(file, layer, path, typed)
    text = f"{dotted(path)} = {toml_value(typed)} in {file}"
    said.answer(text, {"key": dotted(path), "value": typed, "file": file})


@config.command()
@USER_OPTION
def edit(*, user: bool) -> int:
    """Open the file in $VISUAL or $EDITOR; what does not validate is not saved."""
    said = output()
    file, layer = _file(user=user)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            before = stream.read()
    except FileNotFoundError:
        before = starting_file("U" if user else "P")
    descriptor, draft = tempfile.mkstemp(prefix="rch-config-", suffix=".toml")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(before)
    while True:
        try:
            _edit_draft(editor, draft, file)
        except RchError:
            os.unlink(draft)
            raise
        with open(draft, encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read()
        if text == before:
            os.unlink(draft)
            said.say(f"{file} is unchanged")
            return 0
        found = inspect_layer(text.encode("utf-8", "surrogateescape"), file, layer)
        if isinstance(found, LayerFile):
            write_checked(file, layer, text)
            os.unlink(draft)
            said.say(f"{file} saved")
            return 0
        for problem in found:
            print(problem.one_line(), file=sys.stderr)
        if not (sys.stdin.isatty() and confirm("Edit again?", default=True)):
            said.say(f"{file} is unchanged; the draft is kept in {draft}")
            return ConfigError.exit_status


@config.command()
@USER_OPTION
def init(*, user: bool) -> None:
    """Write a file with every key commented out; an existing one is refused."""
    said = output()
    file, _ = _file(user=user)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(f"{file} exists", what=file, hint="rch config edit, or rch config reset") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(starting_file("U" if user else "P"))
    said.answer(f"{file} written", {"file": file})


@config.command()
@click.argument("file", required=False, type=click.Path())
def validate(*, file: str | None) -> int:
    """Check the files that count here, or FILE (as the user's, or below .rch/ as a project's); exit status 0 or 2."""
    said = output()
    checked: list[str] = []
    problems: list[ConfigError] = []
    for path, layer in _files(file):
        if not os.path.exists(path):
            if file:
                raise UsageError(f"{path} does not exist", what=path)
            continue
        checked.append(path)
        problems += _problems(path, layer)
    try:
        if not problems and not file:
            load()
    except ConfigError as error:
        problems.append(error)
    if said.json:
        rows = [
            {"file": p.file, "line": p.line, "key": p.key, "message": p.message, "nearest": p.nearest} for p in problems
        ]
        said.document({"valid": not problems, "files": checked, "problems": rows})
    else:
        for problem in problems:
            print(problem.one_line(), file=sys.stderr)
        if not problems:
            said.line(f"valid: {', '.join(checked)}" if checked else "no file, defaults")
    return ConfigError.exit_status if problems else 0


@config.command()
@click.argument("key", required=False)
@USER_OPTION
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(*, key: str | None, user: bool, yes: bool) -> int:
    """Return to the defaults: the file is renamed to a backup. With KEY only that key is taken out."""
    said = output()
    file, layer = _file(user=user)
    if key is not None:
        path = known_path(key)
        gone = unset_value(file, layer, path)
        text = f"{key} taken out of {file}" if gone else f"{key} is not in {file}"
        said.answer(text, {"file": file, "key": key, "removed": gone})
        return 0
    if not os.path.exists(file):
        said.answer(f"{file} does not exist, the defaults hold already", {"file": file, "backup": None})
        return 0
    if not yes and not confirm(f"Set {file} aside and return to the defaults?"):
        return 1
    backup = set_aside(file)
    said.answer(f"{file} is now {backup}", {"file": file, "backup": backup})
    return 0


@config.command()
@click.option("--revoke", is_flag=True, help="Trust it no longer.")
def trust(*, revoke: bool) -> int:
    """Trust the project's file as it is now: keys that run programs or widen what leaves take effect.

    A changed file is untrusted again.
    """
    said = output()
    where = _places()
    root = find_project_root(here(), where.home)
    file = AbsPath(os.path.join(root, PROJECT_FILE)) if root else None
    found = read_layer(file, Layer.PROJECT, below=root) if file and root else None
    if file is None or found is None:
        raise UsageError("no .rch/config.toml here or above", what="trust", hint="rch config init")
    if revoke:
        gone = trust_store.distrust(where.trust_file, file)
        text = f"{file} is no longer trusted" if gone else f"{file} was not trusted"
        said.answer(text, {"file": file, "revoked": gone})
        return 0
    waiting = load()
    becoming = {name: waiting.origin(name).inert for name in waiting.untrusted}
    trust_store.trust(where.trust_file, file, found.digest)
    load()  # what is trusted now must also be right together with the other layers
    if said.json:
        said.document({"file": file, "digest": found.digest, "active": becoming})
        return 0
    for name, value in becoming.items():
        said.line(f"active: {name} = {toml_value(value)}")
    said.line(f"{file} is trusted as it is now" if becoming else f"{file} is trusted; nothing in it needed that")
    return 0


def known_path(key: str) -> tuple[str, ...]:
    """The path of a known *key*; raises ConfigError."""
    path = split_dotted(key)
    if path is None or row_of(path) is None:
        raise unknown_key(key, path)
    return path


def _check_place(key: str, path: tuple[str, ...], value: str, *, user: bool) -> None:
    """Refuse a key that does not count in the file it would be written into, and name the command that is right."""
    row = row_of(path)
    if row is not None and not (row.in_user_file if user else row.in_project_file):
        whose, other = ("the user's", "") if user else ("a project's", "--user ")
        right = f"rch config set {other}{key} {shlex.quote(value)}"
        raise UsageError(f"{key} does not count in {whose} file", what=key, hint=right)


def _edit_draft(editor: str, draft: str, file: AbsPath) -> None:
    """Let the user's *editor* change *draft*; raises UsageError where it cannot be started, Fault where it fails."""
    hint = "export EDITOR=… (or VISUAL), or rch config set KEY VALUE"
    try:
        ended = subprocess.run([*shlex.split(editor), draft], check=False)
    except (ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the editor {editor} cannot be started ({why})", what=editor, hint=hint) from error
    if ended.returncode != 0:
        raise Fault(f"{editor} ended with {ended.returncode}; {file} is unchanged", host="here", hint=hint)


def _places() -> Places:
    return places(os.environ)


def _file(*, user: bool) -> tuple[AbsPath, Layer]:
    """The file that a change goes into, and what it counts as."""
    where = _places()
    if user:
        return where.user_file, Layer.USER
    root = find_project_root(here(), where.home) or _git_top(here()) or here()
    if root == where.home:
        raise UsageError("the home directory is no project", what="project file", hint="rch config … --user")
    return AbsPath(os.path.join(root, PROJECT_FILE)), Layer.PROJECT


def _git_top(cwd: str) -> str | None:
    directory = cwd
    while not os.path.exists(os.path.join(directory, ".git")):
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent
    return directory


def _files(file: str | None) -> list[tuple[AbsPath, Layer]]:
    if file is not None:
        path = AbsPath(os.path.abspath(file))
        project = os.path.basename(os.path.dirname(path)) == ".rch" or os.path.basename(path) == "project-config.toml"
        return [(path, Layer.PROJECT if project else Layer.USER)]
    where = _places()
    found: list[tuple[AbsPath, Layer]] = [(AbsPath(SYSTEM_FILE), Layer.SYSTEM), (where.user_file, Layer.USER)]
    root = find_project_root(here(), where.home)
    if root:
        found.append((AbsPath(os.path.join(root, PROJECT_FILE)), Layer.PROJECT))
    return found


def _problems(path: AbsPath, layer: Layer) -> list[ConfigError]:
    try:
        read_layer(path, layer)
    except ConfigError as first:
        try:
            with open(path, "rb") as stream:
                found = inspect_layer(stream.read(), path, layer)
        except OSError:
            return [first]
        return found if isinstance(found, list) else [first]
    return []
