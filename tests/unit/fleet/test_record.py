"""Facts of a worker are untrusted: bounded, plain JSON, no template text."""

import json
import os
import stat

import pytest

from rch.errors import ConfigError
from rch.fleet.record import RECORD_MAX, read_observed, write_record


class TestARecord:
    def test_is_private_and_read_back(self, tmp_path):
        assert write_record(str(tmp_path / "state"), "css", b'{"cores": 4}') is True
        path = tmp_path / "state" / "facts" / "css.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert read_observed(str(tmp_path / "state"), "css").facts == {"cores": 4}

    def test_that_says_the_same_is_unchanged_but_seen_again(self, tmp_path):
        write_record(str(tmp_path), "css", b'{"a": 1, "b": 2}')
        path = tmp_path / "facts" / "css.json"
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert read_observed(str(tmp_path), "css").at == "2001-09-09T01:46:40Z"
        assert write_record(str(tmp_path), "css", b'{"b": 2, "a": 1}') is False
        assert read_observed(str(tmp_path), "css").at > "2020"

    def test_leaves_nothing_beside_it(self, tmp_path):
        for value in (b"{}", b'{"a": 1}'):
            write_record(str(tmp_path), "css", value)
        assert os.listdir(tmp_path / "facts") == ["css.json"]

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b'{"os": {"id": "{{ lookup(1) }}"}}', "css: facts.os.id holds template text"),
            (b'{"a": ["x", "{% set y %}"]}', "css: facts.a holds template text"),
            (b'{"{{ key }}": 1}', "css: facts holds template text"),
            (b"[1]", "css: its facts are not one JSON object"),
            (b"Debian GNU/Linux", "css: its facts are not JSON"),
            (b'{"a": "' + b"x" * RECORD_MAX + b'"}', "css: its facts are longer than"),
            (json.dumps({"a": None}).replace("null", "[" * 100 + "]" * 100).encode(), "nested deeper"),
        ],
    )
    def test_pd_06_that_breaks_a_rule_is_refused_and_nothing_is_kept(self, tmp_path, data, why):
        with pytest.raises(ConfigError) as caught:
            write_record(str(tmp_path), "css", data)
        assert why in str(caught.value)
        assert read_observed(str(tmp_path), "css").facts == {}

    @pytest.mark.parametrize("name", ["../css", "a/b", "", ".hidden", "a\nb"])
    def test_cannot_be_placed_elsewhere_by_a_name(self, tmp_path, name):
        with pytest.raises(ConfigError, match="cannot be the name of a worker"):
            write_record(str(tmp_path), name, b"{}")

    def test_that_does_not_parse_counts_as_none(self, tmp_path):
        write_record(str(tmp_path), "css", b"{}")
        (tmp_path / "facts" / "css.json").write_text("{")
        assert read_observed(str(tmp_path), "css").facts == {}
