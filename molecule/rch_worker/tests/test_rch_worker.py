"""The agent, its facts, and what starts by itself."""

import json

import pytest

CACHE = "/home/rch/.rch"
PROGRAM = f"python3 -I -S {CACHE}/bin/rch-wkr"


def as_rch(host, words):
    return host.check_output(f"cd / && runuser -u rch -- {words}")


@pytest.fixture
def systemd(host):
    return host.file("/run/systemd/system").is_directory


def test_the_agent_is_a_link_to_the_version_named_by_its_digest(host):
    link = host.file(f"{CACHE}/bin/rch-wkr")
    target = link.linked_to
    digest = host.file(target).sha256sum
    assert target == f"{CACHE}/versions/{digest[:16]}/rch-wkr"
    assert (link.user, host.file(target).user, host.file(target).mode) == ("rch", "rch", 0o700)
    assert json.loads(as_rch(host, f"{PROGRAM} version"))["build"] == digest


def test_the_facts_were_written_for_everybody_and_can_be_changed_by_root_alone(host):
    fact = host.file("/etc/ansible/facts.d/rch.fact")
    assert (fact.user, fact.mode) == ("root", 0o644)
    facts = json.loads(fact.content_string)
    assert facts["sandbox"] == {"ok": True, "why": ""}
    assert facts["cores"] == len(host.check_output("nproc --all").split()) or facts["cores"] >= 1


def test_ansible_finds_them(host):
    assert host.ansible("setup", "gather_subset=!all,!min,local")["ansible_facts"]["ansible_local"]["rch"]["sandbox"][
        "ok"
    ]


def test_slots_are_offered(host):
    said = json.loads(as_rch(host, f"{PROGRAM} slots --cache {CACHE}"))
    assert said["free"] == said["total"] >= 1


def test_a_job_of_the_account_runs_in_the_sandbox(host):
    line = (
        "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --uid 1234 --hostname probe sh -c 'id -u; hostname'"
    )
    assert as_rch(host, line).split() == ["1234", "probe"]


def test_what_nobody_uses_is_collected_once_a_day(host, systemd):
    if systemd:
        assert host.check_output("systemctl is-enabled rch-wkr-gc.timer") == "enabled"
        assert host.check_output("systemctl is-active rch-wkr-gc.timer") == "active"
        assert "daily" in host.check_output("systemctl cat rch-wkr-gc.timer")
    else:
        assert not host.file("/etc/systemd/system/rch-wkr-gc.timer").exists
        assert not host.file("/etc/cron.d/rch-wkr-gc").exists  # no cron here that would read it


def test_the_collection_takes_what_is_old_and_leaves_what_is_young(host, systemd):
    old, young = f"{CACHE}/jobs/old-job", f"{CACHE}/jobs/young-job"
    as_rch(host, f"mkdir -p {old} {young}")
    as_rch(host, f"touch -d '8 days ago' {old}")
    if systemd:
        host.check_output("systemctl start rch-wkr-gc.service")
        assert host.check_output("systemctl show -p Result --value rch-wkr-gc.service") == "success"
    else:
        as_rch(host, f"{PROGRAM} gc --cache {CACHE} --max-age 604800")
    assert not host.file(old).exists
    assert host.file(young).exists
    as_rch(host, f"rmdir {young}")


class TestTheWarmAgent:
    @pytest.fixture(autouse=True)
    def _only_with_systemd(self, systemd, host):
        if not systemd:
            assert not host.file(f"{CACHE}/serve.sock").exists
            pytest.skip("box1 has systemd, and runs this")

    def children(self, host):
        pid = host.check_output("systemctl show -p MainPID --value rch-wkr.service")
        return host.run(f"pgrep -P {pid}").stdout.split()

    def serve(self, host, rest):
        """The preface and the end of a connection that says nothing, and what *rest* says meanwhile."""
        return host.check_output(
            f"cd / && {{ sleep 2; }} | runuser -u rch -- {PROGRAM} serve --cache {CACHE} & sleep 1; {rest}; wait"
        )

    def test_answers_in_the_place_of_serve(self, host):
        assert host.check_output("systemctl is-active rch-wkr.service") == "active"
        pid = host.check_output("systemctl show -p MainPID --value rch-wkr.service")
        said = self.serve(host, f"pgrep -c -P {pid}").split()
        assert said == ["RCH-WKR", "1", "1"]  # the preface, and one child of the warm process

    def test_is_not_missed_when_it_is_stopped(self, host):
        host.check_output("systemctl stop rch-wkr.service")
        try:
            assert self.serve(host, "true").split() == ["RCH-WKR", "1"]
        finally:
            host.check_output("systemctl start rch-wkr.service")

    def test_does_not_take_what_it_started_along(self, host):
        said = self.serve(host, "systemctl stop rch-wkr.service; pgrep -c -u rch -f 'rch-wkr serve'")
        host.check_output("systemctl start rch-wkr.service")
        assert int(said.split()[-1]) >= 1


def test_the_units_are_sound(host, systemd):
    if systemd:
        for unit in ("rch-wkr.service", "rch-wkr-gc.service", "rch-wkr-gc.timer"):
            done = host.run(f"systemd-analyze verify /etc/systemd/system/{unit}")
            assert unit not in done.stderr, done.stderr
