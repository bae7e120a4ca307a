"""One file: what is wrong in it is said with file, line, key and the nearest known key, and nothing else is raised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rch.config.keys import dotted, key_rows
from rch.config.layers import FILE_SIZE_MAX, Layer, LayerFile, inspect_layer, parse_layer, read_layer
from rch.errors import ConfigError
from rch.paths import AbsPath

FILE = AbsPath("/somewhere/config.toml")


def problem(text: str, layer: Layer = Layer.USER) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_layer(text.encode(), FILE, layer)
    return caught.value


class TestAnUnknownKey:
    def test_ds_08_is_an_error_with_file_line_and_the_nearest_known_key(self) -> None:
        error = problem("# one\n\n[transfer]\ntimeout_sec = 10\ngitt = 'head'\n")
        assert (error.file, error.line, error.key, error.nearest) == (FILE, 5, "transfer.gitt", "transfer.git")
        assert error.one_line().startswith(
            f"rch: error[ConfigError] {FILE}:5: unknown key transfer.gitt; did you mean transfer.git?"
        )
        assert error.exit_status == 2
        assert error.code == "bad-config"

    def test_is_found_at_every_depth(self) -> None:
        assert problem("nonsense = 1").key == "nonsense"
        assert problem("[nonsense]\nx = 1").line == 1
        assert problem("[selection.weights]\nspeeed = 1").nearest == "selection.weights.speed"
        assert problem("[presets.a]\ntags = []\ncolour = 1").line == 3
        assert problem("presets = {a = {colour = 1}}").key == "presets.a.colour"

    @pytest.mark.parametrize("name", ["daemon.pid_file", "artifacts.incremental_sync", "workers.config_file"])
    def test_that_is_retired_names_the_replacement(self, name: str) -> None:
        table, _, key = name.partition(".")
        error = problem(f"[{table}]\n{key} = 'x'\n")
        assert f"{name} no longer exists" in error.message
        assert error.line == 2


class TestAWrongValue:
    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ("[transfer]\n\ngit = 3", 3, 'transfer.git must be "none" | "head" | "full", got 3'),
            ("[transfer]\ncompression_level = 20", 2, "a whole number from 1 to 19, got 20"),
            ("[workers]\nallowed = 'css'", 2, 'workers.allowed must be a list of strings, got "css"'),
            ("[workers]\nallowed = [\n'css',\n3]", 2, "workers.allowed must be a list of strings"),
            ("[execution]\ntimeout_sec = true", 2, "got true"),
            ("[execution.env]\nA = '1'\nB = 2", 3, "execution.env.B must be"),
            ("[execution]\nenv = {A = '1', B = 2}", 2, "execution.env.B must be"),
            ("[execution.env]\nRCH_WORKER = 'css'", 2, "execution.env.RCH_WORKER must be"),
            ("stages = 3", 1, "stages must be a table"),
            ("[stages]\nfmt = 3", 2, "stages.fmt must be a table"),
            ("transfer = []", 1, "transfer must be a table"),
            ("[daemon]\nsocket_path = 'rchd.sock'", 2, "must be an absolute path of at most 100 bytes"),
        ],
    )
    def test_says_where_what_it_must_be_and_what_it_is(self, text: str, line: int, says: str) -> None:
        error = problem(text, Layer.PROJECT if text.startswith(("stages", "[stages")) else Layer.USER)
        assert error.line == line
        assert says in error.message

    def test_a_value_cannot_break_the_one_line(self) -> None:
        error = problem('[transfer]\ngit = "a\\nb\\u001b[31m"')
        assert "\n" not in error.one_line()
        assert "\x1b" not in error.one_line()

    def test_the_problem_that_stands_first_is_raised_and_all_are_listed_in_order(self) -> None:
        found = inspect_layer(b"[transfer]\nb = 1\na = 2\ngit = 3\n", FILE, Layer.USER)
        assert isinstance(found, list)
        assert [error.line for error in found] == [2, 3, 4]
        assert problem("[transfer]\nb = 1\na = 2\n").line == 2


class TestAScope:
    def test_a_key_of_the_user_does_not_count_in_a_project(self) -> None:
        error = problem("[general]\nenabled = false", Layer.PROJECT)
        assert "does not count in a project file" in error.message

    def test_a_key_of_the_project_does_not_count_in_the_users_file(self) -> None:
        assert "belongs in a project's .rch/config.toml" in problem("[project]\nid = 'x'").message

    def test_gate_allow_skip_is_the_users_alone(self) -> None:
        assert problem("[gate]\nallow_skip = true", Layer.PROJECT).key == "gate.allow_skip"
        parse_layer(b"[gate]\nallow_skip = true", FILE, Layer.USER)


class TestAFileThatDoesNotParse:
    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"a = 1\nb = \n", 2),
            (b"a = 1\n[t\n", 2),
            (b"a = 1\na = 2\n", 2),
            (b"a = '''\nnever ends", 2),
            (b"a = 1\nb = \xff\n", 2),
            (b"ok = 1\nn = " + b"9" * 5000, 2),
            (b"a = " + b"[" * 5000, 1),
        ],
    )
    def test_is_an_error_with_its_line(self, data: bytes, line: int) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_layer(data, FILE, Layer.USER)
        assert caught.value.file == FILE
        assert caught.value.line == line


KEYS = [dotted(path) for path in key_rows()]
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.dates(),
        st.times(),
        st.datetimes(),
        st.sampled_from(["auto", "full", "", "css", "/x"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)


class TestAnyFile:
    @given(name=st.sampled_from(KEYS), value=VALUES, layer=st.sampled_from([Layer.USER, Layer.SYSTEM, Layer.PROJECT]))
    def test_any_value_of_any_key_validates_or_is_a_config_error_with_file_and_line(
        self, name: str, value: object, layer: Layer
    ) -> None:
        import tomlkit

        parts = ["name" if part == "*" else part for part in name.split(".")]
        nested: object = value
        for part in reversed(parts):
            nested = {part: nested}
        try:
            text = tomlkit.dumps(nested)  # type: ignore[arg-type]  # always a dict here
        except Exception:  # what tomlkit cannot write is not the subject
            return
        self._check(text.encode("utf-8", "surrogatepass"), layer)

    @given(data=st.binary(max_size=200))
    def test_any_bytes_validate_or_are_a_config_error_with_file_and_line(self, data: bytes) -> None:
        self._check(data, Layer.USER)

    @given(text=st.text(alphabet="[]{}=.,\"'#\n \\abc019-_truefalse", max_size=80))
    def test_anything_that_looks_like_toml_validates_or_is_a_config_error(self, text: str) -> None:
        self._check(text.encode(), Layer.PROJECT)

    def _check(self, data: bytes, layer: Layer) -> None:
        found = inspect_layer(data, FILE, layer)
        if isinstance(found, LayerFile):
            return
        assert found
        for error in found:
            assert isinstance(error, ConfigError)
            assert error.file == FILE
            assert 1 <= error.line <= data.count(b"\n") + data.count(b"\r") + 1
            assert "\n" not in error.one_line()


class TestReadingAFile:
    def test_reads_it_again_only_when_it_has_changed(self, tmp_path: Path) -> None:
        path = AbsPath(str(tmp_path / "c.toml"))
        Path(path).write_text("[general]\nverbose = true\n")
        first = read_layer(path, Layer.USER)
        assert read_layer(path, Layer.USER) is first
        Path(path).write_text("[general]\nverbose = false\n")
        second = read_layer(path, Layer.USER)
        assert second is not first
        assert second is not None
        assert second.values[("general", "verbose")] is False

    def test_notices_a_change_of_same_size_and_time_by_the_inode(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[workers]\nblocked = ['a']\n")
        before = path.stat()
        read_layer(AbsPath(str(path)), Layer.USER)
        beside = tmp_path / "new"
        beside.write_text("[workers]\nblocked = ['b']\n")
        os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
        beside.rename(path)
        found = read_layer(AbsPath(str(path)), Layer.USER)
        assert found is not None
        assert found.values[("workers", "blocked")] == ("b",)

    def test_says_so_when_it_is_no_file_too_large_or_not_readable(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        large = tmp_path / "large"
        large.write_bytes(b"#" * (FILE_SIZE_MAX + 1))
        for path, says in ((fifo, "not a regular file"), (tmp_path, "not a regular file"), (large, "at most")):
            with pytest.raises(ConfigError, match=says):
                read_layer(AbsPath(str(path)), Layer.USER)

    def test_a_missing_file_is_no_layer(self, tmp_path: Path) -> None:
        assert read_layer(AbsPath(str(tmp_path / "none")), Layer.USER) is None
        assert read_layer(AbsPath(str(tmp_path / "none" / "below")), Layer.USER) is None

    def test_se_08_a_projects_file_that_links_out_of_the_project_is_refused(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.toml"
        secret.write_text("[general]\nverbose = 'topsecret'\n")
        root = tmp_path / "app"
        (root / ".rch").mkdir(parents=True)
        link = root / ".rch/config.toml"
        link.symlink_to(secret)
        with pytest.raises(ConfigError, match="leaves the project") as caught:
            read_layer(AbsPath(str(link)), Layer.PROJECT, below=str(root))
        assert "topsecret" not in caught.value.message
        link.unlink()
        (root / "inside.toml").write_text("[project]\nid = 'x'\n")
        link.symlink_to(root / "inside.toml")
        assert read_layer(AbsPath(str(link)), Layer.PROJECT, below=str(root)) is not None


settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("patient")
