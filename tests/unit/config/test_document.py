"""The page and the examples are made from the schema, current, complete, and they load."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rch.config.document import configuration_page, project_example, starting_file, toml_value, user_example
from rch.config.keys import key_rows
from rch.config.layers import Layer, LayerFile, inspect_layer, parse_layer
from rch.config.schema import RETIRED
from rch.config.switches import VARIABLES
from rch.paths import AbsPath

TOP = Path(__file__).parents[3]
ROWS = list(key_rows().values())


class TestTheGeneratedFiles:
    @pytest.mark.parametrize(
        ("name", "made"),
        [
            ("docs/configuration.md", configuration_page),
            ("examples/config.toml", user_example),
            ("examples/project-config.toml", project_example),
        ],
    )
    def test_are_current(self, name: str, made: Any) -> None:
        assert (TOP / name).read_text() == made(), "run: python -m rch.config.document"

    def test_ds_08_the_examples_load_in_their_scope(self) -> None:
        for name, layer in (("config.toml", Layer.USER), ("project-config.toml", Layer.PROJECT)):
            found = inspect_layer((TOP / "examples" / name).read_bytes(), AbsPath(name), layer)
            assert isinstance(found, LayerFile), found
            assert found.values

    def test_the_users_example_changes_nothing_when_it_is_copied(self, desk: Any) -> None:
        before = {name: value for name, value, _ in desk.load().rows()}
        desk.user(user_example())
        after = {name: value for name, value, _ in desk.load().rows()}
        assert {name: after[name] for name in before} == before
        assert set(after) - set(before) == {"dispatch.templates.agent.timeout"}

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_show_every_key(self, row: Any) -> None:
        assert f"`{row.name.replace('*', 'NAME')}`" in configuration_page()
        for scope, text in (("U", user_example()), ("P", project_example())):
            if row.in_user_file if scope == "U" else row.in_project_file:
                assert any(line.lstrip("# ").startswith(f"{row.path[-1]} = ") for line in text.splitlines()), (
                    f"{row.name} is missing from the {scope} example"
                )

    def test_show_every_variable_and_every_retired_key(self) -> None:
        page = configuration_page()
        for variable in VARIABLES:
            assert f"| `{variable.name}` |" in page
        for name in RETIRED:
            assert f"| `{name}` |" in page

    @pytest.mark.parametrize(("scope", "layer"), [("U", Layer.USER), ("P", Layer.PROJECT)])
    def test_the_starting_file_sets_nothing_and_loads_when_its_examples_are_uncommented(
        self, scope: str, layer: Layer
    ) -> None:
        text = starting_file(scope)
        assert tomllib.loads(text) == {}
        lines = []
        for line in text.splitlines():
            bare = line.removeprefix("# ")
            if bare.startswith("[") or (" = " in bare and bare.split(" = ")[0].replace("_", "").isalnum()):
                lines.append(bare)
        values = [line for line in lines if not line.endswith('= ""')]
        assert parse_layer("\n".join(values).encode(), AbsPath("x"), layer).values

    def test_write_values_as_toml(self) -> None:
        for value in (True, 3, 0.5, 'a"b\\c\né', ["a", 1], {"A b": "x", "c": ["y"]}, [], {}):
            assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value
