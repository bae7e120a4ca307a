"""The compiled registry: fast to read, compiled anew when the inventory changed, never replaced by a wrong one."""

import json
import os
import stat
from pathlib import Path

import pytest

from rch.errors import ConfigError
from rch.fleet import is_stale, load_registry, read_registry, refresh_if_stale, registry
from rch.fleet.__main__ import main
from rch.fleet.record import write_record
from rch.fleet.variables import VARIABLES

HOSTS = """\
all:
  children:
    rch_workers:
      hosts:
        yto: {ansible_host: 203.0.113.30, ansible_user: ubuntu}
        css: {ansible_host: 203.0.113.20, ansible_user: ubuntu, rch_slots: 32, rch_priority: 100}
    heavy: {hosts: {css: {}}}
    elsewhere: {hosts: {other: {rch_slotz: 1}}}
"""


@pytest.fixture
def source(tmp_path):
    top = tmp_path / "inventory"
    top.mkdir()
    (top / "hosts.yml").write_text(HOSTS)
    return str(top)


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


@pytest.fixture
def asked(monkeypatch):
    """Counts how often Ansible is asked; what it answers is the real thing, once per contents."""
    calls, answers = [], {}

    def ask(where, really=registry.ask_ansible):
        text = Path(where, "hosts.yml").read_text()
        calls.append(where)
        if text not in answers:
            answers[text] = really(where)
        return answers[text]

    monkeypatch.setattr(registry, "ask_ansible", ask)
    return calls


class TestLoading:
    def test_asks_ansible_once_and_reads_the_snapshot_from_then_on(self, state, source, asked):
        first = load_registry(state, source)
        second = load_registry(state, source)
        assert len(asked) == 1
        assert {name: one.declared for name, one in first.workers.items()} == {
            name: one.declared for name, one in second.workers.items()
        }
        assert first.digest == second.digest
        assert list(second.workers) == ["css", "yto"]
        css = second.workers["css"].declared
        assert (css.host, css.slots, css.tags, css.user) == ("203.0.113.20", 32, ("heavy",), "rch")

    def test_compiles_anew_when_a_file_changed_appeared_or_went(self, state, source, asked):
        load_registry(state, source)
        Path(source, "hosts.yml").write_text(HOSTS.replace("32", "16"))
        assert is_stale(state, source)
        assert load_registry(state, source).workers["css"].declared.slots == 16
        os.mkdir(os.path.join(source, "group_vars"))
        assert refresh_if_stale(state, source) is not None
        assert refresh_if_stale(state, source) is None
        assert len(asked) == 3

    def test_reading_starts_no_process_and_does_not_look_at_the_inventory(self, state, source, asked):
        load_registry(state, source)
        os.rename(source, source + ".gone")
        assert list(read_registry(state).workers) == ["css", "yto"]

    def test_compiles_anew_for_another_inventory(self, state, source, asked, tmp_path):
        load_registry(state, source)
        other = tmp_path / "other"
        other.mkdir()
        (other / "hosts.yml").write_text("all: {children: {rch_workers: {hosts: {one: {}}}}}\n")
        assert list(load_registry(state, str(other)).workers) == ["one"]

    def test_asks_a_source_without_a_file_again_after_a_while(self, state, source, asked, monkeypatch):
        Path(source, "made.yml").write_text("plugin: ansible.builtin.constructed\nstrict: false\n")
        load_registry(state, source)
        assert not is_stale(state, source)
        now = registry.time.time()
        monkeypatch.setattr(registry.time, "time", lambda: now + 301)
        assert is_stale(state, source)

    def test_takes_a_snapshot_of_another_version_for_none(self, state, source, asked):
        load_registry(state, source)
        path = Path(state, "registry.json")
        snapshot = json.loads(path.read_text())
        snapshot["workers"]["css"]["from_the_future"] = 1
        path.write_text(json.dumps(snapshot))
        assert is_stale(state, source)
        with pytest.raises(ConfigError, match="not been compiled"):
            read_registry(state)

    def test_keeps_the_snapshot_private(self, state, source, asked):
        load_registry(state, source)
        assert stat.S_IMODE(os.stat(os.path.join(state, "registry.json")).st_mode) == 0o600
        assert sorted(os.listdir(state)) == ["registry.json"]

    def test_writes_no_secret_of_the_inventory(self, state, source, asked):
        Path(source, "hosts.yml").write_text(HOSTS.replace("rch_slots: 32", "ansible_become_password: hunter2"))
        load_registry(state, source)
        assert "hunter2" not in Path(state, "registry.json").read_text()


class TestFacts:
    def test_are_joined_and_never_mixed_with_what_is_declared(self, state, source, asked):
        load_registry(state, source)
        write_record(state, "css", b'{"slots": 99, "cores": 4}')
        css = read_registry(state).workers["css"]
        assert (css.declared.slots, css.observed.facts["slots"]) == (32, 99)
        assert css.observed.at.endswith("Z")
        assert read_registry(state).workers["yto"].observed.facts == {}

    def test_the_workstations_own_key_is_used_where_the_inventory_names_none(self, state, source, asked):
        assert load_registry(state, source).workers["css"].declared.ssh_key is None
        os.makedirs(os.path.join(state, "ssh"))
        Path(registry.own_key(state)).touch()
        assert read_registry(state).workers["css"].declared.ssh_key == registry.own_key(state)


class TestAWrongInventory:
    def broken(self, source, text):
        Path(source, "hosts.yml").write_text(text)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (HOSTS.replace("32", '"eight"'), ":6: css: rch_slots must be a whole number from 1 to 1024"),
            (HOSTS.replace("rch_slots", "rch_slotz"), ":6: css: unknown registry variable rch_slotz; did you mean"),
            (HOSTS.replace("ubuntu}", '"{{ me }}"}'), ":5: yto: ansible_user is a template"),
            (HOSTS + " - [", ": is not valid YAML"),
        ],
    )
    def test_is_one_line_with_file_and_line_and_the_good_snapshot_stays(self, state, source, asked, text, line):
        load_registry(state, source)
        self.broken(source, text)
        with pytest.raises(ConfigError) as caught:
            load_registry(state, source)
        said = caught.value.one_line()
        assert line in said
        assert os.path.join(source, "hosts.yml") in said
        assert "\n" not in said
        assert read_registry(state).workers["css"].declared.slots == 32

    def test_of_hosts_that_are_no_workers_is_not_looked_at(self, state, source, asked):
        assert "other" not in load_registry(state, source).workers

    def test_pd_06_that_ansible_cannot_parse_is_an_error_and_not_an_empty_fleet(self, state, source):
        Path(source, "more").write_text("[group:nonsense]\nx\n")
        with pytest.raises(ConfigError, match="Ansible refuses the inventory") as caught:
            load_registry(state, source)
        assert "\n" not in caught.value.one_line()


class TestTheCommand:
    def run(self, capsys, *words):
        status = main(words)
        out = capsys.readouterr()
        return status, out.out.strip(), out.err.strip()

    def test_compile_tells_whether_the_workers_changed(self, state, source, asked, capsys):
        words = ("compile", "--state", state, "--inventory", source)
        assert self.run(capsys, *words) == (0, "changed", "")
        assert self.run(capsys, *words) == (0, "unchanged", "")
        with open(os.path.join(source, "hosts.yml"), "a") as file:
            file.write("# a comment\n")
        assert self.run(capsys, *words) == (0, "unchanged", "")
        assert len(asked) == 2

    def test_check_writes_nothing(self, state, source, asked, capsys):
        assert self.run(capsys, "check", "--state", state, "--inventory", source) == (0, "changed", "")
        assert not os.path.exists(state)

    def test_says_what_is_wrong_in_one_line(self, state, source, capsys):
        status, out, err = self.run(capsys, "check", "--state", state, "--inventory", source + "/none")
        assert (status, out) == (2, "")
        assert err.startswith("rch: error[ConfigError] ")
        assert len(err.splitlines()) == 1


def test_the_example_is_valid_and_shows_every_registry_variable(state):
    example = Path(__file__).resolve().parents[3] / "examples" / "hosts.yml"
    workers = load_registry(state, str(example)).workers
    assert workers["css"].declared.tags == ("heavy", "nvme", "zone:eu-1")
    assert workers["fmd"].declared.user == "me"
    assert [name for name in VARIABLES if name.startswith("rch_") and f" {name}:" not in example.read_text()] == []


def test_the_inventory_that_is_found_without_the_variable_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("RCH_INVENTORY", "/elsewhere")
    (tmp_path / "rch").mkdir()
    (tmp_path / "rch" / "inventory.yml").write_text("all: {}\n")
    assert main(["inventory"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/rch/inventory.yml\n"
