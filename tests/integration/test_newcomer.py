"""A fresh Debian 12 with Python 3.11 and git, nothing else: ./dev does the rest."""

import re

import pytest

pytestmark = [pytest.mark.container, pytest.mark.heavy, pytest.mark.timeout(1500)]


class TestAFreshMachine:
    def test_shows_the_demo_after_one_command(self, machine):
        assert machine("command -v rsync bwrap cargo cc pip")[1] == ""
        status, text = machine("./dev demo")
        assert status == 0, text
        for number in range(1, 7):
            assert f"[{number}/6] " in text
        assert re.search(r"ansible: ok=\d+ changed=[1-9]\d* failed=0 .* again: changed=0", text)
        assert "local rebuild: nothing to do (cargo: 6 of 6 units Fresh" in text

    def test_needs_no_set_up_the_second_time(self, machine):
        assert machine("./dev setup")[0] == 0
        status, said = machine("./dev setup && git status --porcelain && ls .lab")
        assert "dev:" not in said  # silent: nothing was missing, nothing was made
        assert "No such file" in said  # the demo left no lab behind
        assert status == 2  # of that ls

    def test_passes_lint(self, machine):
        status, said = machine("./dev lint")
        assert status == 0, said

    def test_passes_the_unit_tests(self, machine):
        status, said = machine("./dev test --fast tests/unit -q --tb=short")
        assert status == 0, said[-20_000:]

    def test_without_root_is_told_what_to_install(self, machine):
        # A machine where the packages are missing and nobody is root: sshd's package is taken for missing.
        line = (
            "useradd --create-home me 2>/dev/null; cp -r /clone /home/me/rch && chown -R me /home/me/rch && "
            "mv /usr/sbin/sshd /usr/sbin/sshd.away; su me -c 'cd && cd rch && ./dev setup'; status=$?; "
            "mv /usr/sbin/sshd.away /usr/sbin/sshd; exit $status"
        )
        status, said = machine(line)
        assert status == 1
        assert "dev: missing system packages: openssh-server - as root: apt install openssh-server" in said
