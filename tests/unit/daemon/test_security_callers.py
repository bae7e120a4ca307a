"""A caller that changes what paths lead to while rchd looks: nothing is read or written for it that it has not shown."""

import os

import pytest
from station import Caller, Station

from rch.daemon.wire import Frame
from rch.execute.mock import FaultPlan
from rch.fleet.toolchains import equipment
from rch.worker.identity import c_identity


class Turncoat(Caller):
    """Does *meanwhile* when it is asked for its first proof, before it gives it."""

    def __init__(self, meanwhile):
        super().__init__()
        self.meanwhile = [meanwhile]

    def send(self, frame, payload=b""):
        if frame is Frame.PROVE and self.meanwhile:
            self.meanwhile.pop()()
        super().send(frame, payload)


@pytest.fixture
def here(tmp_path):
    c = c_identity("/usr/bin:/bin")
    row = {"identity": c["identity"], "shown": c["shown"], "binds": {}}
    facts = {"os": {"id": "mock", "version_id": "1"}, "machine": "x", "toolchains": {"c": [row]}, "packages": "a1"}
    one = Station(tmp_path, FaultPlan(), facts=facts, programs={"make": "cat in > out"})
    assert equipment(facts)
    yield one
    one.close()


@pytest.fixture
def secret(tmp_path):
    """A directory that is none of the caller's."""
    place = tmp_path / "secret"
    place.mkdir()
    (place / "in").write_text("a key\n")
    (place / "rules.mk").write_text("# a key\n")
    return place


def sent(station):
    """Every path of this machine of which the worker got the lock or a file."""
    return {root["path"] for fields in station.asked("prepare") for root in fields["roots"]}


class TestACallerThatChangesItsMind:
    def test_se_08_cannot_add_a_root_after_the_proofs(self, here, secret):
        caller = Turncoat(lambda: (here.project / "Makefile").write_text(f"include {secret}/rules.mk\n"))
        status, caller = here.order(["make"], caller=caller)
        assert status is None
        assert caller.last(Frame.LOCAL)[1]["code"] == "path-not-proved"
        assert str(secret) not in sent(here)
        assert sorted(os.listdir(secret)) == ["in", "rules.mk"]

    def test_se_08_cannot_put_another_directory_at_the_path_it_has_proved(self, here, secret):
        class Swapping(Caller):
            def send(self, frame, payload=b""):
                super().send(frame, payload)
                if frame is Frame.PROVED:
                    here.project.rename(here.project.with_name("mine"))
                    secret.rename(here.project)

        status, caller = here.order(["make"], caller=Swapping())
        assert status is None
        assert caller.last(Frame.LOCAL)[1]["code"] == "path-not-proved"
        assert sent(here) == set()
        assert not (here.project / "out").exists()

    def test_ex_10_in_a_sandbox_gets_a_job_without_network(self, here):
        assert here.order(["make"])[0] == 0
        assert here.asked("prepare")[-1]["spec"]["network"] == "host"
        (here.project / "in").write_text("second")
        assert here.order(["make"], confined=True)[0] == 0
        assert here.asked("prepare")[-1]["spec"]["network"] == "none"

    def test_and_one_that_does_not_is_served(self, here):
        assert here.order(["make"])[0] == 0
        assert (here.project / "out").read_text() == "first"
