"""From a bare machine to a fleet that builds, as a person at a terminal does it; then plan, apply, and what goes wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rch.testing.lab import EmbeddedLab, stop_daemons
from rch.testing.lab_provision import program

pytestmark = [pytest.mark.sshd, pytest.mark.slow, pytest.mark.timeout(1800)]


class Terminal:
    """A real terminal with ``rch`` on it; a person who answers what is asked."""

    def __init__(self, words: list[str], env: dict[str, str], cwd: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, start_new_session=True
        )
        os.close(slave)
        self.seen = ""
        self.answered = 0

    def answer(self, question: str, text: str, timeout_s: float = 800) -> None:
        """Wait until *question* is asked, then type *text* and return."""
        until = time.monotonic() + timeout_s
        while question not in self.seen[self.answered :]:
            assert self._read(until), f"{question!r} was not asked:\n{self.seen}"
        self.answered = self.seen.index(question, self.answered) + len(question)
        os.write(self.master, text.encode() + b"\n")

    def end(self, timeout_s: float = 800) -> int:
        """The exit status, when everything was read."""
        until = time.monotonic() + timeout_s
        while self._read(until):
            pass
        os.close(self.master)
        return self.process.wait(30)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            self.process.kill()
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            data = b""
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace"))
        return bool(data)


class Newcomer:
    """A user with an ssh_config, one bare machine in it, and no inventory yet."""

    def __init__(self, lab: EmbeddedLab, place: Path, state: str) -> None:
        self.lab, self.place = lab, place
        worker = lab.worker
        self.ssh_config = place / "ssh_config"
        self.ssh_config.write_text(
            f"Host lab1\n  HostName 127.0.0.1\n  Port {worker.port}\n  User {worker.user}\n"
            f"  IdentityFile {worker.client_key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {worker.known_hosts}\n"
            "Host dead\n  HostName 127.0.0.1\n  Port 1\n"
        )
        self.inventory = place / "inventory"
        variables = self.inventory / "group_vars/rch_workers"
        variables.mkdir(parents=True)
        (variables / "registry.yml").write_text(f"rch_cache_dir: {worker.cache_dir}\n")
        (place / "home").mkdir()
        (place / "home/.codex").mkdir()
        kept = ("CARGO_HOME", "RUSTUP_HOME")
        home = os.path.expanduser("~")
        self.state = state
        self.env = {
            "PATH": f"{os.path.dirname(program('rch'))}:{os.environ['PATH']}",
            "HOME": str(place / "home"),
            "CARGO_HOME": f"{home}/.cargo",
            "RUSTUP_HOME": f"{home}/.rustup",
            **{name: os.environ[name] for name in kept if name in os.environ},
            "RCH_INVENTORY": str(self.inventory),
            "RCH_STATE_DIR": state,
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
        }

    def rch(self, *words: str, timeout_s: float = 800) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program("rch"), *words], cwd=self.place, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def newcomer(lab_place: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    lab = EmbeddedLab(os.path.join(lab_place, "emb-init"))
    lab.up(with_roles=False)
    state = os.path.join(lab_place, "init")
    try:
        yield Newcomer(lab, tmp_path_factory.mktemp("newcomer"), state)
    finally:
        stop_daemons(state)
        lab.down()


@pytest.fixture
def listed(newcomer: Newcomer) -> Newcomer:
    """With the machine in the inventory, whoever put it there."""
    if not (newcomer.inventory / "hosts.yml").exists():
        words = ("workers", "discover", "lab1", "-F", str(newcomer.ssh_config), "--add", "--yes", "--embedded")
        done = newcomer.rch(*words)
        assert done.returncode == 0, done.stderr
    return newcomer


@pytest.mark.heavy
class TestTheGuidedPath:
    def test_leads_from_an_ssh_config_to_a_canary_that_was_built_there(self, newcomer: Newcomer) -> None:
        words = [program("rch"), "init", "-F", str(newcomer.ssh_config), "--embedded"]
        screen = Terminal(words, newcomer.env, newcomer.place)
        screen.answer("Log in to each of them once and look (lab1, dead)? [Y/n]", "y")
        screen.answer("Which become workers? (lab1; - for none) [all]", "lab1")
        screen.answer(f"Write {newcomer.inventory}/hosts.yml? [Y/n]", "")
        screen.answer("Provision lab1 now (ansible-playbook site.yml)? [Y/n]", "")
        screen.answer("Install for Codex (hook and shims)? [Y/n]", "y")
        status = screen.end()
        said = screen.seen
        assert status == 0, said
        assert f"Found 2 hosts in {newcomer.ssh_config}." in said
        assert re.search(
            r"lab1 \d+ cores ✓ dead ✗ \(ssh: connect to host 127\.0\.0\.1 port 1: Connection refused\)", said
        )
        assert re.search(r"ansible-playbook site\.yml\s+█+\s+1 host\s+ok=\d+ changed=\d+", said)
        assert "rchd started (pid" in said
        assert "Installed for Codex." in said
        assert re.search(r"Canary: \S+.* on lab1 … \d+\.\d s, .* here\. Ready\.", said)
        assert (newcomer.place / "home/.codex/hooks.json").exists() or list((newcomer.place / "home/.codex").iterdir())
        text = (newcomer.inventory / "hosts.yml").read_text()
        assert (
            f"lab1: {{ansible_user: {newcomer.lab.worker.user}, ansible_ssh_common_args: -F {newcomer.ssh_config}"
            in text
        )
        assert "dead" not in text


class TestAFleetThatIsThere:
    @pytest.mark.heavy
    def test_is_planned_and_then_brought_to_what_was_planned(self, listed: Newcomer) -> None:
        newcomer = listed
        link = os.path.join(newcomer.lab.worker.cache_dir, "bin/rch-wkr")
        if not os.path.lexists(link):
            assert newcomer.rch("fleet", "apply").returncode == 0
        os.unlink(link)
        plan = newcomer.rch("fleet", "plan")
        assert plan.returncode == 0, plan.stderr
        first, *_, last = plan.stdout.splitlines()
        assert re.fullmatch(r"lab1 +rch_worker +Switch to the version: .*bin/rch-wkr: state absent → link", first)
        assert last == "1 of 1 host would change, nothing else. Apply with: rch fleet apply"
        assert not os.path.lexists(link)
        applied = newcomer.rch("fleet", "apply", "--json")
        assert applied.returncode == 0, applied.stderr
        document = json.loads(applied.stdout)
        assert document["status"] == "successful"
        assert [one["what"] for one in document["changes"] if one["host"] == "lab1"] == ["Switch to the version"]
        assert os.path.exists(link)

    def test_ends_at_a_machine_that_is_away_with_one_line_and_5(self, listed: Newcomer) -> None:
        newcomer = listed
        newcomer.lab.worker.unplug()
        try:
            applied = newcomer.rch("fleet", "apply", "--limit", "lab1")
        finally:
            newcomer.lab.worker.plug_in()
        assert applied.returncode == 5
        (line,) = [one for one in applied.stderr.splitlines() if one.startswith("rch: error")]
        assert line.startswith("rch: error[Provisioning] lab1: lab1 does not answer (")
        assert "Connection refused" in line
        assert line.endswith("next: is it up, are ansible_host and ansible_port right")
        assert "Traceback" not in applied.stderr

    def test_names_the_line_of_a_mistake_before_anything_is_done(self, listed: Newcomer) -> None:
        newcomer = listed
        file = newcomer.inventory / "group_vars/rch_workers/registry.yml"
        good = file.read_text()
        try:
            file.write_text(good + 'rch_slots: "eight"\n')
            applied = newcomer.rch("fleet", "apply")
        finally:
            file.write_text(good)
        assert applied.returncode == 2
        assert f'{file}:2: lab1: rch_slots must be a whole number from 1 to 1024, got "eight"' in applied.stderr

    def test_may_be_interrupted_and_leaves_no_process(self, listed: Newcomer) -> None:
        newcomer = listed
        process = subprocess.Popen(
            [program("rch"), "fleet", "apply"], cwd=newcomer.place, env={**newcomer.env, "RCH_TEST_MARK": "interrupted"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 120
        while not marked("ansible-playbook") and time.monotonic() < until:
            time.sleep(0.1)
        assert marked("ansible-playbook")
        process.send_signal(2)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "running it again completes it" in said
        until = time.monotonic() + 20
        while marked("") and time.monotonic() < until:
            time.sleep(0.1)
        assert marked("") == []


def marked(word: str) -> list[str]:
    """Command lines of live processes of the interrupted run that hold *word*."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as stream:
                ours = b"RCH_TEST_MARK=interrupted" in stream.read().split(b"\0")
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                command = stream.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if ours and word in command:
            found.append(command)
    return found
