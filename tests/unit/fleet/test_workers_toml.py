"""workers.toml -> inventory variables, one for one (coverage D-5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rch.errors import ConfigError
from rch.fleet.workers_toml import ImportedWorker, parse

TOP = Path(__file__).parents[3]


def test_the_example_is_read_whole() -> None:
    text = (TOP / "examples/workers.toml").read_text()
    found = parse(text, "workers.toml")
    assert found.group == {"rch_slots_per_core": 1.0, "ansible_timeout": 5}
    assert found.heartbeat_s == 30
    assert found.unknown == ()
    assert found.workers == (
        ImportedWorker(
            "css",
            {
                "ansible_host": "203.0.113.20",
                "ansible_user": "ubuntu",
                "ansible_ssh_private_key_file": "~/.ssh/baremetal.pem",
                "rch_slots": 32,
                "rch_priority": 100,
            },
            ("heavy",),
        ),
        ImportedWorker(
            "yto",
            {
                "ansible_host": "203.0.113.30",
                "ansible_user": "ubuntu",
                "ansible_ssh_private_key_file": "~/.ssh/ovh.pem",
            },
        ),
        ImportedWorker("fmd", {"ansible_host": "192.0.2.40", "ansible_user": "ubuntu", "rch_enabled": False}),
    )


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, 1), (5000, 5), (5001, 6), (999.5, 1)])
def test_the_connect_limit_becomes_whole_seconds_rounded_up(milliseconds: float, seconds: int) -> None:
    assert parse(f"[defaults]\nssh_timeout_ms = {milliseconds}\n", "f").group == {"ansible_timeout": seconds}


def test_unknown_keys_are_named_and_the_rest_is_there() -> None:
    text = 'verson = 1\n[defaults]\nslot = 2\n[[workers]]\nid = "a"\nhost = "h"\ncolour = "red"\n'
    found = parse(text, "f")
    assert found.unknown == ("verson", "defaults.slot", "workers.a.colour")
    assert [one.name for one in found.workers] == ["a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[workers]\n", "not valid TOML"),
        ('[[workers]]\nhost = "h"\n', "worker 1 has no id"),
        ('[[workers]]\nid = "a"\n', "worker a has no host"),
        ("workers = 3\n", "must be tables"),
        ('[[workers]]\nid = "a"\nhost = "h"\ntags = "heavy"\n', "tags must be a list"),
        ('[defaults]\nssh_timeout_ms = "long"\n', "defaults.ssh_timeout_ms must be a number"),
        ("[defaults]\nslots_per_core = 100\n", "defaults.slots_per_core must be a number from 0.05 to 16, got 100.0"),
        ("[defaults]\nssh_timeout_ms = 400000\n", "defaults.ssh_timeout_ms, in seconds, must be a whole number"),
        ("defaults = 3\n", "[defaults]"),
        (
            '[[workers]]\nid = "a"\nhost = "h"\ntotal_slots = "eight"\n',
            'worker a: total_slots must be a whole number from 1 to 1024, got "eight"',
        ),
        ('[[workers]]\nid = "a"\nhost = "h i"\n', "worker a: host must be a host name or an address"),
        ('[[workers]]\nid = "a"\nhost = "h"\nenabled = "yes"\n', "worker a: enabled must be true or false"),
        ('[[workers]]\nid = "a {{ b }}"\nhost = "h"\n', 'worker 1: id must be a plain name, got "a {{ b }}"'),
    ],
)
def test_a_mistake_is_one_line_with_the_file(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    assert "f.toml" in caught.value.message
    assert told in caught.value.message
