"""Role workstation for real: what it writes, that it writes it once, and that what it writes works."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

HOSTS = "all: {children: {rch_workers: {hosts: {one: {rch_embedded: true, ansible_host: 192.0.2.7}}}}}\n"
RC_FILES = (".bashrc", ".profile", ".zshrc", ".config/fish/config.fish")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2vUrMNPuB1m0hVdzUOGxXyfbuUVCVpJSZcaS4H"
UNITS = ("rchd.service", "rchd.socket")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where home, inventory and state directory of this workstation lie."""
    return tmp_path_factory.mktemp("ws")


@pytest.fixture(scope="module")
def home(place):
    home = place / "home"
    for name in RC_FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("# mine\n")
    return home


@pytest.fixture(scope="module")
def play(start_play, place, home):
    """A function: runs the playbook once more."""
    (place / "hosts.yml").write_text(HOSTS)
    more = {
        "workstation_service": "systemd",
        "workstation_completions": ["bash", "zsh", "fish"],
        "workstation_agents": ["claude"],
        "workstation_host_keys": {"one": [KEY]},
    }
    words = ("--inventory", str(place / "hosts.yml"), "--extra-vars", json.dumps(more))

    def run(*further):
        done = start_play(
            place, "playbooks/workstation.yml", *words, *further, HOME=str(home), XDG_RUNTIME_DIR="", XDG_CONFIG_HOME=""
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="module")
def played(play):
    """The outputs of a run in check mode on a blank home and of two that count."""
    return [play("--check"), play(), play()]


def changes_here(output):
    """Of this machine's line in the recap."""
    return int(re.search(r"localhost .*changed=(\d+)", output)[1])


def test_a_blank_home_passes_in_check_mode_and_the_second_run_changes_nothing(played):
    assert "failed=0" in played[0]
    assert changes_here(played[2]) == 0, played[2]
    assert changes_here(played[1]) > 5


class TestTheHome:
    @pytest.fixture(autouse=True)
    def _is_set_up(self, played):
        pass

    def test_d_4_keeps_every_rc_file_as_it_was(self, home):
        assert {name: (home / name).read_text() for name in RC_FILES} == dict.fromkeys(RC_FILES, "# mine\n")

    def test_has_completions_that_the_shells_find_by_themselves(self, home):
        script = home / ".local/share/bash-completion/completions/rch"
        ask = f'. {script}; COMP_WORDS=(rch dae); COMP_CWORD=1; _rch_completion rch; echo "${{COMPREPLY[*]}}"'
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", ask],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == ["daemon"]
        assert "compdef" in (home / ".local/share/zsh/site-functions/_rch").read_text()
        assert "complete" in (home / ".config/fish/completions/rch.fish").read_text()

    def test_has_the_hook_of_the_agent_that_was_named_and_of_no_other(self, home):
        assert "rch" in (home / ".claude" / "settings.json").read_text()
        assert not (home / ".codex").exists()
        assert not (home / ".gemini").exists()

    def test_has_shims_in_the_state_directory(self, place):
        assert (place / "state" / "shims" / "make").exists()

    def test_trusts_the_host_keys_that_were_read_on_the_worker(self, place):
        path = place / "state" / "ssh" / "known_hosts"
        assert path.read_text() == f"192.0.2.7 {KEY} rch:one\n"
        assert path.stat().st_mode & 0o777 == 0o600
        found = subprocess.run(
            ["ssh-keygen", "-F", "192.0.2.7", "-f", path], capture_output=True, timeout=30, check=False
        )
        assert found.returncode == 0


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs the programs of systemd; the CI machine has them"
)
class TestTheUnits:
    @pytest.fixture(autouse=True)
    def _is_set_up(self, played):
        pass

    def test_d_17_are_sound(self, home):
        units = home / ".config" / "systemd" / "user"
        assert sorted(path.name for path in units.iterdir()) == list(UNITS)
        done = subprocess.run(
            ["systemd-analyze", "--user", "verify", *(units / name for name in UNITS)],
            env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_start_an_rchd_that_takes_the_socket_over(self, home, place):
        """systemd-socket-activate does what the user manager does with rchd.socket: listens, then runs the service."""
        units = home / ".config" / "systemd" / "user"
        told = dict(
            line.split("=", 1) for name in UNITS for line in (units / name).read_text().splitlines() if "=" in line
        )
        words = told["ExecStart"].replace('"', "").split()
        settings = dict(
            line.removeprefix("Environment=").strip('"').split("=", 1)
            for line in (units / "rchd.service").read_text().splitlines()
            if line.startswith("Environment=")
        )
        environ = {**os.environ, **settings, "HOME": str(home)}
        address = told["ListenStream"]
        os.makedirs(os.path.dirname(address), mode=0o700, exist_ok=True)
        setenv = [f"--setenv={name}={value}" for name, value in settings.items()]
        with subprocess.Popen(
            ["systemd-socket-activate", "-l", address, *setenv, *words], env=environ, stderr=subprocess.DEVNULL
        ) as manager:
            try:
                until = time.monotonic() + 20
                while not os.path.exists(address):
                    assert time.monotonic() < until
                    time.sleep(0.02)
                rch = [sys.executable, "-m", "rch", "daemon"]
                status = subprocess.run(
                    [*rch, "status", "--json"], env=environ, capture_output=True, timeout=60, check=True
                )
                assert json.loads(status.stdout)["pid"] == manager.pid
                stop = subprocess.run(
                    [*rch, "stop"], env=environ, capture_output=True, text=True, timeout=60, check=True
                )
                assert "systemctl --user stop rchd.socket" in stop.stderr
                assert manager.wait(30) == 0
                assert os.path.exists(address)  # the manager's, not rchd's to remove
            finally:
                manager.kill()
