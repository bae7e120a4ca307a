"""Levels of bulk transfers: what the link, the sender and the configuration make of "auto"."""

import pytest

from rch.config import load_config
from rch.daemon.pool import Member
from rch.daemon.terms import bulk_settings
from rch.fleet.model import Declared, Observed, Worker


class Link:
    def __init__(self, mbit_s):
        self.rate = mbit_s

    def link_mbit_s(self):
        return self.rate


def levels(tmp_path, mbit_s, host="203.0.113.1", text="", score=None, **env):
    home = tmp_path / "home"
    (home / ".config" / "rch").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "rch" / "config.toml").write_text(text)
    config = load_config(str(home), {"HOME": str(home), **env}, state_dir=str(tmp_path / "state"))
    member = Member(Worker(Declared("w", host), Observed({"speed": {"cpu_score": score}})), Link(mbit_s))
    found = bulk_settings(config, member)
    return found.push_level, found.return_level


class TestTheLevel:
    @pytest.mark.parametrize(
        ("mbit_s", "score", "expected"),
        [
            (None, None, (3, 1)),
            (100.0, None, (9, 9)),
            (200.0, 50.0, (5, 2)),
            (500.0, None, (2, 2)),
            (10_000, 1, (1, 1)),
        ],
    )
    def test_a_18_auto_follows_the_measured_link_and_the_senders_score(self, tmp_path, mbit_s, score, expected):
        assert levels(tmp_path, mbit_s, score=score) == expected

    def test_a_18_auto_is_none_on_loopback(self, tmp_path):
        assert levels(tmp_path, 100.0, host="127.0.0.1") == (0, 0)

    def test_a_18_each_direction_has_its_key_and_rch_compression_beats_both(self, tmp_path):
        text = "[transfer]\ncompression_level = 7\n[artifacts]\ncompression_level = 12\n"
        assert levels(tmp_path, 100.0, text=text) == (7, 12)
        assert levels(tmp_path, 100.0, text=text, RCH_COMPRESSION="4") == (4, 4)
