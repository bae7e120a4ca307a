"""The keys of the schema as rows: look-up by dotted path, the nearest known key, and what a value must be."""

from __future__ import annotations

import difflib
import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from rch.config.schema import RETIRED, Settings
from rch.errors import ConfigError

Path = tuple[str, ...]
"""The parts of a key; a name in an open table stands as itself in a value's path, as ``*`` in a row's."""


@dataclass(frozen=True)
class KeyRow:
    """One key. ``path`` has ``*`` where a name of the user's own stands; the rest is as in :mod:`rch.config.schema`."""

    path: Path
    default: Any
    scope: str
    merge: str
    trust: str
    effect: str
    origin: str
    expects: str
    example: Any
    shown_default: str
    open: bool
    """True when the key holds a table of free names (``execution.env``): each name is a value of its own."""

    @property
    def name(self) -> str:
        return dotted(self.path)

    @property
    def in_user_file(self) -> bool:
        return "U" in self.scope

    @property
    def in_project_file(self) -> bool:
        return "P" in self.scope

    @property
    def needs_trust(self) -> bool:
        """A project's value is inert until trusted, whatever it is."""
        return "P*" in self.scope


def dotted(path: Sequence[str]) -> str:
    """``("stages", "a b", "cmd")`` as ``stages."a b".cmd``."""
    return ".".join(part if part == "*" or _is_bare(part) else _quoted(part) for part in path)


def _is_bare(part: str) -> bool:
    return part != "" and all(c.isascii() and (c.isalnum() or c in "-_") for c in part)


def _quoted(part: str) -> str:
    import json

    return json.dumps(part)


def split_dotted(text: str) -> Path | None:
    """Undo :func:`dotted`; None when *text* is no dotted TOML key."""
    import tomllib

    if "\n" in text or "=" in text or "#" in text:
        return None
    try:
        table: Any = tomllib.loads(f"{text} = 0")
    except (ValueError, RecursionError):
        return None
    parts: list[str] = []
    while isinstance(table, dict):
        if len(table) != 1:
            return None
        part, table = next(iter(table.items()))
        parts.append(part)
    return tuple(parts)


@functools.cache
def key_rows() -> Mapping[Path, KeyRow]:
    """Every key by its path, in the order of the schema."""
    return {row.path: row for row in _walk(Settings, ())}


@functools.cache
def tables() -> Mapping[Path, type[BaseModel]]:
    """Every table by its path (``*`` for names), in the order of the schema."""
    return dict(_walk_tables(Settings, ()))


def row_of(path: Path) -> KeyRow | None:
    """The row of a concrete path: ``("execution", "env", "A")`` finds ``execution.env``."""
    rows = key_rows()
    node: Any = Settings
    pattern: Path = ()
    for index, part in enumerate(path):
        field = _field(node, part)
        if field is None:
            return None
        pattern = (*pattern, part)
        model, free = _shape(field)
        if model is None:
            row = rows.get(pattern)
            rest = len(path) - index - 1
            return row if row is not None and (rest == 0 or (rest == 1 and row.open)) else None
        node = _Named(model) if free else model
        if isinstance(field, _Named):
            pattern = (*pattern[:-1], "*")
    return None


def table_of(path: Path) -> type[BaseModel] | None:
    """The table at a concrete path, or None."""
    for pattern, model in tables().items():
        if len(pattern) == len(path) and all(p in ("*", q) for p, q in zip(pattern, path, strict=True)):
            return model
    return None


def nearest(path: Path) -> str:
    """The known key (dotted) that *path* was probably meant to be, or ""."""
    wanted = dotted(path)
    names = [row.name for row in key_rows().values()] + [dotted(p) for p in tables() if p]
    concrete = [_with_names_of(name, path) for name in names]
    found = difflib.get_close_matches(wanted, concrete, n=1, cutoff=0.6)
    if found:
        return found[0]
    last = path[-1]
    same_end = [name for name in concrete if name.rsplit(".", 1)[-1] == last]
    if same_end:
        return same_end[0]
    siblings = [name for name in concrete if name.rpartition(".")[0] == dotted(path[:-1])]
    by_end = difflib.get_close_matches(last, [name.rsplit(".", 1)[-1] for name in siblings], n=1, cutoff=0.4)
    return next((name for name in siblings if by_end and name.rsplit(".", 1)[-1] == by_end[0]), "")


def unknown_key(key: str, path: Path | None) -> ConfigError:
    """What is said of *key*, which is no key: the nearest one, or those of the section that it names."""
    table = table_of(path) if path else None
    if path and table:
        names = ", ".join(dotted((*path, name)) for name in table.model_fields)
        return ConfigError(f"{key} is a section; its keys are {names}", key=key, hint="rch config show")
    close = nearest(path) if path else ""
    meant = f"; did you mean {close}?" if close else ""
    text = f"unknown key {key or repr(key)}{meant}"
    return ConfigError(text, key=key, nearest=close, hint="rch config show lists every key")


def retired(path: Path) -> str:
    """What to use instead of a retired key, or ""."""
    return RETIRED.get(dotted(path), "")


def expectation(row: KeyRow) -> str:
    """What completes "KEY must be …"."""
    return row.expects or _described(_json_schemas()[row.path])


def check_value(row: KeyRow, value: Any) -> Any:
    """*value* (as tomllib gives it) in the form that the schema holds; raises pydantic's ValidationError."""
    return _adapters(row.path).validate_python(value)


def defaults(row: KeyRow) -> Any:
    """The default as TOML and JSON can show it."""
    return plain(row.default)


def plain(value: Any) -> Any:
    """Tuples as lists, models as dicts: what json and tomlkit take."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, BaseModel):
        return plain(value.model_dump(by_alias=True))
    return value


class _Named:
    """An open table: any name leads to *model*."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model


def _field(node: Any, part: str) -> FieldInfo | _Named | None:
    if isinstance(node, _Named):
        return node
    for name, field in node.model_fields.items():
        if (field.alias or name) == part:
            return typing.cast("FieldInfo", field)
    return None


def _shape(field: FieldInfo | _Named) -> tuple[type[BaseModel] | None, bool]:
    """(model, free): the table a field leads to, and whether names of the user's own come first."""
    if isinstance(field, _Named):
        return field.model, False
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind, False
    if typing.get_origin(kind) is dict:
        inner = typing.get_args(kind)[1]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner, True
    return None, False


def _walk(model: type[BaseModel], path: Path) -> Iterator[KeyRow]:
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        inner, free = _shape(field)
        if inner is not None:
            yield from _walk(inner, (*here, "*") if free else here)
            continue
        facts: Any = field.json_schema_extra
        yield KeyRow(
            path=here,
            default=field.default,
            scope=facts["scope"],
            merge=facts["merge"],
            trust=facts["trust"],
            effect=field.description or "",
            origin=facts["origin"],
            expects=facts["expects"],
            example=facts["example"],
            shown_default=facts["shown_default"],
            open=typing.get_origin(field.annotation) is dict,
        )


def _walk_tables(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner, free = _shape(field)
        if inner is not None:
            here = (*path, field.alias or name)
            yield from _walk_tables(inner, (*here, "*") if free else here)


def _with_names_of(name: str, path: Path) -> str:
    """*name* with each ``*`` replaced by what stands in that place of *path*."""
    parts = name.split(".")
    return ".".join(dotted((path[i],)) if p == "*" and i < len(path) else p for i, p in enumerate(parts))


@functools.cache
def _adapters(path: Path) -> TypeAdapter[Any]:
    field = _declared(path)
    kind: Any = typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _declared(path: Path) -> FieldInfo:
    model = tables()[path[:-1]]
    found = _field(model, path[-1])
    assert isinstance(found, FieldInfo)
    return found


@functools.cache
def _json_schemas() -> Mapping[Path, dict[str, Any]]:
    return {path: _adapters(path).json_schema() for path in key_rows()}


def _described(schema: dict[str, Any]) -> str:
    """A JSON schema of one value in words."""
    if "anyOf" in schema:
        shown = [_described(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(shown))
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    kind = schema.get("type")
    low, high = schema.get("minimum"), schema.get("maximum")
    span = f" from {low} to {high}" if low is not None and high is not None else ""
    if kind == "integer":
        return f"a whole number{span}"
    if kind == "number":
        return f"a number{span}"
    if kind == "array":
        return "a list of strings"
    return {"boolean": "true or false", "string": "a string", "object": "a table"}.get(str(kind), "a value")
