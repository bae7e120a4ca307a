"""Where a job is to go: the grammar of addresses, and which of several names counts (checklist addresses, A1 to A10)."""

from __future__ import annotations

import pytest
from fake_rchd import FakeRchd

from rch.client_address import BadAddress, parse_address
from rch.client_options import choose, parse
from rch.daemon.wire import Frame

ABSOLUTE = "a Unix socket path must be absolute, e.g. unix:///run/user/1000/rch/rchd.sock"

NORMAL = {
    "css": "css",
    "css-2.example": "css-2.example",
    "unix:///tmp/x.sock": "unix:///tmp/x.sock",
    "UNIX:///tmp//x.sock": "unix:///tmp/x.sock",
    "tcp://127.0.0.1:9000": "tcp://127.0.0.1:9000",
    "tcp://Host.Example:1": "tcp://host.example:1",
    "tcp://[::1]:9000": "tcp://[::1]:9000",
    "ssh://u@worker1:2222/w": "ssh://u@worker1:2222/w",
    "SSH://U@Worker1": "ssh://U@worker1:22",
    "ssh://[fe80::A]/srv/x": "ssh://[fe80::a]:22/srv/x",
    "local:": "local:",
    "mock:": "mock:",
    "mock:?seed=1": "mock:?seed=1",
    "k8s://ctx/ns/pod": "k8s://ctx/ns/pod",
    "k8s://ctx/ns/pod/box": "k8s://ctx/ns/pod/box",
}

REFUSED = {
    "unix://~/x": ABSOLUTE,
    "unix://a/b": ABSOLUTE,
    "~/x.sock": ABSOLUTE,
    "unix:///" + "x" * 100: "the path has 101 bytes, a socket's may have 100",
    "tcp://h": "tcp needs a port, e.g. tcp://127.0.0.1:9000",
    "tcp://h:0": "port must be 1-65535",
    "tcp://h:99999": "port must be 1-65535",
    "tcp://h:nine": "port must be 1-65535",
    "tcp://h:": "port must be 1-65535",
    "tcp://h:\u0663": "port must be 1-65535",
    "tcp://:9000": "the host is empty",
    "tcp://[::1:9000": "a bracket is missing, e.g. tcp://[::1]:9000",
    "tcp://::1]:9000": "a bracket is missing, e.g. tcp://[::1]:9000",
    "tcp://u@h:1": "only ssh has a user",
    "tcp://h:1/x": "nothing stands behind the port of tcp",
    "ssh://": "the host is empty",
    "ssh://@h": "the user is empty",
    "ssh://u:secret@h": "a password does not belong into an address",
    "ssh://h?x=1": "an address has no query (?)",
    "ssh://h#x": "an address has no fragment (#)",
    "tls://h:1": "tls:// is reserved and not available yet; use rch tunnel, or tcp:// with a token",
    "http://h": 'unknown scheme "http"; known: unix, tcp, ssh, local, mock, k8s',
    "local:x": "local: names this machine and takes nothing behind it",
    "mock:x": "mock: takes a query and nothing else, e.g. mock:?seed=1",
    "k8s://ctx/ns": "write k8s://context/namespace/pod or k8s://context/namespace/pod/container",
    "tcp:h:1": "write tcp://",
    "/tmp/x": "did you mean unix:///tmp/x?",
    "127.0.0.1:9000": "did you mean tcp://127.0.0.1:9000 or ssh://127.0.0.1:9000?",
    "a b": "it has a space in it",
    "a\tb": "it has a control character in it",
    "": "it is empty",
}


class TestAnAddress:
    @pytest.mark.parametrize(("value", "normal"), NORMAL.items())
    def test_ta1_is_written_back_in_its_normal_form(self, value, normal):
        assert parse_address(value).text == normal
        assert parse_address(normal).text == normal

    @pytest.mark.parametrize(("value", "reason"), REFUSED.items())
    def test_ta1_that_is_none_is_refused_with_the_reason(self, value, reason):
        with pytest.raises(BadAddress) as caught:
            parse_address(value)
        assert str(caught.value) == reason


def chosen(env: dict[str, str], *words: str):
    return choose(parse([*words, "--", "make"]), env)


class TestThePlace:
    @pytest.mark.parametrize(
        ("env", "words", "demand", "worker"),
        [
            ({}, ["--on", "css"], "--on", "css"),
            ({}, ["--addr", "css"], "--on", "css"),
            ({"RCH_ADDR": "css"}, [], "RCH_ADDR", "css"),
            ({"FUGUE_ADDR": "css"}, [], "FUGUE_ADDR", "css"),
            ({"GASTOWN_FUGUE_ADDR": "css"}, [], "GASTOWN_FUGUE_ADDR", "css"),
            ({"RCH_ADDR": "", "FUGUE_ADDR": "css"}, [], "FUGUE_ADDR", "css"),
            ({"RCH_ADDR": "yto"}, ["--on", "css"], "--on", "css"),
            ({"RCH_ADDR": "yto"}, ["--worker", "css"], "--worker", "css"),
            ({"RCH_ADDR": "yto"}, ["--tag", "heavy"], "", ""),
            ({"RCH_ADDR": ""}, [], "", ""),
        ],
    )
    def test_a9_is_a_flags_before_a_variables(self, env, words, demand, worker):
        choice = chosen(env, *words)
        assert (choice.how, choice.demand, choice.worker) == ("ask", demand, worker)

    def test_a1_may_be_this_machine_or_the_mock(self):
        assert chosen({}, "--on", "local:").mode == "local"
        assert chosen({"RCH_ADDR": "MOCK:"}).mode == "mock"

    @pytest.mark.parametrize("value", [v for v in NORMAL if ":" in v and v not in ("local:", "mock:")])
    def test_that_cannot_be_reached_yet_is_refused_and_never_becomes_this_machine(self, value):
        choice = chosen({"RCH_ADDR": value})
        assert (choice.how, choice.code) == ("refuse", "bad-address")
        assert "not available yet; name a worker" in choice.line

    def test_a5_two_variables_that_differ_are_named_in_one_line(self):
        choice = chosen({"RCH_ADDR": "css", "FUGUE_ADDR": "css", "GASTOWN_FUGUE_ADDR": "yto"})
        assert choice.worker == "css"
        assert choice.notes == ["RCH_ADDR css counts, not GASTOWN_FUGUE_ADDR=yto"]
        assert chosen({"RCH_ADDR": "css", "FUGUE_ADDR": "css"}).notes == []

    def test_a_9_names_what_it_overrides_when_asked_to_say_more(self):
        env = {"RCH_WORKER": "mia", "RCH_TAG": "heavy", "RCH_ADDR": "yto"}
        assert chosen(env, "--on", "css").notes == []
        assert chosen(env, "-v", "--on", "css").notes == [
            "--on css counts, not RCH_ADDR=yto",
            "--on css overrides RCH_WORKER=mia, RCH_TAG=heavy",
        ]

    def test_a_worker_that_is_named_beats_the_executor_of_the_environment(self):
        assert chosen({"RCH_MODE": "local"}, "--on", "css").mode == "remote"
        assert chosen({"RCH_MODE": "mock"}, "--worker", "css").mode == "remote"

    @pytest.mark.parametrize(("mode", "on"), [("local", "css"), ("mock", "local:"), ("remote", "local:")])
    def test_and_a_mode_that_contradict_one_another_are_refused(self, mode, on):
        choice = chosen({}, "--mode", mode, "--on", on)
        assert choice.how == "refuse"
        assert choice.line == f'address "{on}" (from --on): --mode {mode} says otherwise'


class TestAsAProcess:
    def test_a4_a_bad_address_ends_with_2_in_one_line_and_nobody_is_asked(self, client):
        with FakeRchd(client.state, lambda peer: peer.exit(0)) as rchd:
            for words, env, source in (
                (["--on", "tcp://h"], {}, "--on"),
                ([], {"RCH_ADDR": "tcp://h"}, "RCH_ADDR"),
                ([], {"FUGUE_ADDR": "tcp://h"}, "FUGUE_ADDR"),
            ):
                ended = client.run(*words, "--", "echo", "here", env=env)
                reason = "tcp needs a port, e.g. tcp://127.0.0.1:9000"
                assert ended.err == f'rch: error[UsageError] address "tcp://h" (from {source}): {reason}\n'
                assert (ended.status, ended.out) == (2, b"")
            assert rchd.peers == []

    def test_a10_the_place_travels_with_the_request_and_forbids_a_run_here(self, client):
        def script(peer):
            peer.say(Frame.LOCAL, code="unreachable", reason="css is away")

        with FakeRchd(client.state, script) as rchd:
            ended = client.run("--", "echo", "here", env={"RCH_ADDR": "css"})
        assert rchd.peers[0].request["options"]["worker"] == "css"
        assert rchd.peers[0].request["options"]["require_remote"] is True
        assert (ended.status, ended.out) == (103, b"")
        assert "RCH_ADDR forbids a run here" in ended.err

    def test_a28_unset_everything_is_as_before_also_with_a_local_switch(self, client):
        ended = client.run("--", "echo", "here", env={"RCH_ADDR": "css", "RCH_LOCAL_ONLY": "1", "RCH_QUIET": "1"})
        assert (ended.status, ended.out) == (0, b"here\n")
