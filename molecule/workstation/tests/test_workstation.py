"""The account as a client: rchd starts by its socket when a command asks, and shells and agents find what is theirs."""

import json
import shlex

import pytest

STATE = "/home/dev/.local/state/rch"


@pytest.fixture
def dev(host):
    """A function: a shell line, run by the account as in a login session -> what it printed."""

    def run(line, rc=0):
        words = f"env -i HOME=/home/dev USER=dev PATH=/opt/rch/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/1000 {line}"
        done = host.run(f"runuser -u dev -- sh -c {shlex.quote('cd && exec ' + words)}")
        assert done.rc == rc, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_user_manager_listens_and_the_first_command_starts_rchd(host, dev):
    assert dev("systemctl --user is-enabled rchd.socket") == "enabled\n"
    dev("rch daemon stop")
    dev("systemctl --user stop rchd.service")
    assert dev("systemctl --user is-active rchd.socket") == "active\n"
    assert json.loads(dev("rch status --json"))["running"] is True
    assert dev("systemctl --user is-active rchd.service") == "active\n"
    pid = int(dev("systemctl --user show --property MainPID --value rchd.service"))
    assert json.loads(dev("rch daemon status --json"))["pid"] == pid
    assert host.file("/run/user/1000/rch/rchd.sock").mode == 0o600


def test_rchd_that_was_killed_starts_anew(host, dev):
    dev("rch status")
    pid = dev("systemctl --user show --property MainPID --value rchd.service").strip()
    host.check_output(f"kill -KILL {pid}")
    assert json.loads(dev("rch status --json"))["pid"] != int(pid)


def test_the_inventory_of_the_play_is_the_one_that_counts(dev):
    assert [one["name"] for one in json.loads(dev("rch workers list --json"))] == ["css"]


def test_a_command_whose_worker_is_away_runs_here_and_says_why(host, dev):
    dev("mkdir -p made")
    dev("sh -c 'printf \"all:\\n\\techo built here\\n\" > made/Makefile'")
    done = host.run(
        "runuser -u dev -- env -i HOME=/home/dev PATH=/opt/rch/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/1000 "
        "sh -c 'cd /home/dev/made && rch exec -- make'"
    )
    assert (done.rc, done.stdout.splitlines()[-1]) == (0, "built here"), done.stderr
    assert done.stderr.startswith("[rch] local: ")


def test_a_shell_completes_and_no_rc_file_was_touched(host, dev):
    script = f"{'/home/dev'}/.local/share/bash-completion/completions/rch"
    ask = f'. {script}; COMP_WORDS=(rch dae); COMP_CWORD=1; _rch_completion rch; echo "${{COMPREPLY[*]}}"'
    assert dev(f"bash -c {shlex.quote(ask)}").split() == ["daemon"]
    for name in (".bashrc", ".profile"):
        assert host.file(f"/home/dev/{name}").content == host.file(f"/etc/skel/{name}").content


def test_the_shims_and_the_hook_of_the_agent_that_was_named_are_there(host, dev):
    found = json.loads(dev("rch shim status --json"))
    assert found["installed"]
    assert not found["missing"] + found["stale"]
    assert found["shims"]["make"] == "/usr/bin/make"
    states = {one["agent"]: one["state"] for one in json.loads(dev("rch hook status --json"))["agents"]}
    assert states["claude"] == "installed"
    assert states["codex"] != "installed"


def test_what_is_private_is_private(host):
    assert host.file(STATE).mode == 0o700
    assert host.file(f"{STATE}/ssh/id_ed25519").mode == 0o600
    assert "rch:css" in host.file(f"{STATE}/ssh/known_hosts").content_string
