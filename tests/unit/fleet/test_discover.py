"""Hosts of ssh_config and ssh aliases: parsed, resolved by ssh itself, each once; nothing is sourced or contacted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rch.errors import UsageError
from rch.fleet import discover as module
from rch.fleet.discover import Candidate, Found, alias_lines, discover, named, probe_all, variables_of

CONFIG = """\
Include {home}/.ssh/extra
Host css csd-alias
    HostName 203.0.113.20
    User ubuntu
    Port 2222
Host *.example !bad ?x
    User nobody
host=yto
    HostName 203.0.113.30
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text(CONFIG.replace("{home}", str(tmp_path)))
    (ssh / "extra").write_text("Host fmd\n  HostName 192.0.2.40\n  User me\n")
    return tmp_path


def found(home: Path) -> dict[str, Candidate]:
    return {one.name: one for one in discover(str(home), str(home / ".ssh/config"))}


class TestTheConfigOfSsh:
    def test_gives_every_name_that_is_no_pattern_as_ssh_resolves_it(self, home: Path) -> None:
        machines = found(home)
        # Both names of one block are the same machine; the first one names it.
        assert list(machines) == ["fmd", "css", "yto"]
        assert (machines["css"].host, machines["css"].port, machines["css"].user) == ("203.0.113.20", 2222, "ubuntu")
        assert machines["fmd"].user == "me"

    def test_that_is_not_there_or_broken_gives_nothing(self, home: Path) -> None:
        (home / ".ssh/config").write_text("Host css\n  Port many\n")
        assert found(home) == {}
        (home / ".ssh/config").unlink()
        assert discover(str(home)) == []


class TestAliases:
    def test_are_read_in_either_quote_from_every_rc_file(self, home: Path) -> None:
        (home / ".zshrc").write_text("alias csd='ssh -i ~/.ssh/k -p 2200 ubuntu@198.51.100.20'\nalias ll='ls -l'\n")
        (home / ".zshrc.local").write_text('alias aux="ssh root@198.51.100.21"  # the old one\n')
        (home / ".bashrc").write_text("  alias b1='ssh -l me host1.example.org'\n")
        (home / ".bash_aliases").write_text("alias b2='ssh host2.example.org'\n")
        machines = found(home)
        assert {"csd", "aux", "b1", "b2"} <= set(machines)
        csd = machines["csd"]
        assert (csd.user, csd.host, csd.port, csd.own_port) == ("ubuntu", "198.51.100.20", 2200, 2200)
        assert csd.key.endswith("/.ssh/k")
        assert csd.source == str(home / ".zshrc")
        assert machines["b1"].user == "me"

    def test_are_never_run(self, home: Path) -> None:
        (home / ".bashrc").write_text(
            f"touch {home}/ran\n"
            f"alias a='ssh me@`touch {home}/ran`'\n"
            f"alias b='ssh me@$(touch {home}/ran)'\n"
            f"alias f='ssh me@$HOST'\n"
            f"alias c='ssh -o ProxyCommand=x me@h'\n"
            f"alias d='ssh me@h uptime'\n"
            f"alias e='sshfs me@h'\n"
        )
        assert set(found(home)) == {"fmd", "css", "yto"}
        assert not (home / "ran").exists()

    def test_of_a_machine_that_is_known_already_count_once(self, home: Path) -> None:
        (home / ".zshrc").write_text("alias again='ssh -p 2222 ubuntu@203.0.113.20'\nalias css='ssh me@203.0.113.99'\n")
        machines = found(home)
        assert "again" not in machines
        # Another machine under a name that is taken is called by its address.
        assert machines["203.0.113.99"].user == "me"

    def test_may_have_a_comment_behind_them_and_nothing_else(self) -> None:
        assert list(alias_lines("alias a='ssh x' b='ssh y'\nalias c='ssh z'; # c\n")) == [("c", "ssh z")]


class TestAHostThatIsNamed:
    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("css=ubuntu@203.0.113.20:2222", ("css", "203.0.113.20", 2222, "ubuntu")),
            ("me@build.example.org", ("build", "build.example.org", 22, "me")),
            ("me@203.0.113.20", ("203.0.113.20", "203.0.113.20", 22, "me")),
            ("v6=me@[2001:db8::1]:23", ("v6", "2001:db8::1", 23, "me")),
            ("v6=me@2001:db8::1", ("v6", "2001:db8::1", 22, "me")),
        ],
    )
    def test_is_name_user_host_and_port(self, word: str, expected: tuple[str, str, int, str]) -> None:
        one = named(word, ssh_config="/dev/null")
        assert (one.name, one.host, one.port, one.user) == expected

    @pytest.mark.parametrize(
        "word", ["", "@", "a b", "me@", "x=-oProxyCommand=y", "{{ x }}", "a=b@c:port", "a@h;rm", "a@h:0", "a@h:99999"]
    )
    def test_that_is_no_such_word_is_a_usage_error(self, word: str) -> None:
        with pytest.raises(UsageError):
            named(word, ssh_config="/dev/null")


class TestVariables:
    def test_say_what_ssh_does_not_know_by_the_name(self, home: Path) -> None:
        one = Found(found(home)["css"], system="Linux", root=True)
        assert variables_of(one) == {"ansible_user": "ubuntu"}
        other = Found(named("x=me@203.0.113.9:2200", key="/k", ssh_config="/dev/null"), system="Linux")
        assert variables_of(other, "/etc/my config") == {
            "ansible_host": "203.0.113.9",
            "ansible_user": "me",
            "ansible_port": 2200,
            "ansible_ssh_private_key_file": "/k",
            "ansible_ssh_common_args": "-F '/etc/my config'",
            "rch_embedded": True,
        }


class TestProbes:
    """ssh replaced by a program that answers as a machine would."""

    @pytest.fixture
    def ssh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        program = tmp_path / "bin/ssh"
        program.parent.mkdir()
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return program

    @staticmethod
    def answers(program: Path, script: str) -> Found:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        (one,) = probe_all([Candidate("css", "css", "203.0.113.20", 22, "me")])
        return one

    def test_see_cores_and_compilers_through_a_talkative_profile(
        self, ssh: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # rustup puts its programs below the home, where no PATH of a plain login leads.
        rustc = ssh.parents[1] / ".cargo/bin/rustc"
        rustc.parent.mkdir(parents=True)
        rustc.write_text("#!/bin/sh\n")
        rustc.chmod(0o755)
        monkeypatch.setenv("HOME", str(ssh.parents[1]))
        # The last word is the script that would run there; run here it looks at this machine.
        one = self.answers(ssh, 'echo "Welcome!"; for last; do :; done; sh -c "$last"; echo bye >&2')
        assert one.why == ""
        assert one.system == "Linux"
        assert one.cores >= 1
        assert (one.rust, one.c) == (True, True)

    def test_leave_only_linux(self, ssh: Path) -> None:
        one = self.answers(ssh, "echo rch-saw system Darwin; echo rch-saw cores 8; echo rch-saw python3 yes")
        assert one.why == "Darwin; a worker runs Linux"

    def test_ask_for_python(self, ssh: Path) -> None:
        one = self.answers(ssh, "echo rch-saw system Linux; echo rch-saw python3 no")
        assert one.why.startswith("no Python 3")

    def test_say_why_nobody_answered(self, ssh: Path) -> None:
        assert self.answers(ssh, "echo 'me@css: Permission denied (publickey).' >&2; exit 255").why == (
            "me@css: Permission denied (publickey)."
        )
        one = self.answers(ssh, "echo 'Host key verification failed.' >&2; exit 255")
        assert one.why == "its host key is unknown here; log in once and compare the fingerprint: ssh me@css"

    def test_end_and_go_side_by_side(self, ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PROBE_S", 0.5)
        ssh.write_text("#!/bin/sh\nexec sleep 60\n")
        ssh.chmod(0o755)
        started = time.monotonic()
        machines = probe_all([Candidate(f"m{n}", "h", "h", 22, "me") for n in range(8)])
        assert [one.why for one in machines] == ["no answer within 1.0 s"] * 8
        assert time.monotonic() - started < 8 * 1.0  # one behind the other would take 8 s and more

    def test_never_ask_anything_and_never_accept_a_key(self, ssh: Path) -> None:
        asked = ssh.parent / "asked"
        self.answers(ssh, f'printf "%s\\n" "$@" > {asked}; [ -t 0 ] || cat; exit 255')
        words = asked.read_text().splitlines()
        assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=5", "ForwardAgent=no"} <= set(words)
