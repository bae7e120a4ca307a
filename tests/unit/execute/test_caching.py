"""Which jobs a worker's compiler cache takes part in, and what they are given for it."""

import pytest

from rch.execute.caching import Caching, caching
from rch.toolchains import KINDS

FACTS = {
    "compiler_cache": {
        "rustc_wrapper": "/usr/bin/sccache",
        "cc_wrapper": "/usr/bin/ccache",
        "place": "/home/rch/.rch/toolchains/compiler_cache",
        "seen_at": "/opt/rch/compiler-cache",
        "directories": ["/var/cache/sccache", "/var/cache/ccache"],
        "credentials": False,
        "versions": {"/usr/bin/sccache": "sccache 0.10.0", "/usr/bin/ccache": "ccache version 4.7.5"},
    }
}


def given(kind, command, env=None, facts=FACTS, network="host"):
    return caching(KINDS[kind], command.split(), env or {}, facts, network)


def with_(**more):
    return {"compiler_cache": {**FACTS["compiler_cache"], **more}}


class TestC:
    def test_is_cached_by_a_name_in_front_of_the_path(self):
        found = given("make", "make -j4")
        assert found.first == ("/opt/rch/compiler-cache/bin",)
        assert found.env == {"CCACHE_CONFIGPATH": "/opt/rch/compiler-cache/ccache.conf"}
        assert found.binds == (
            ("/home/rch/.rch/toolchains/compiler_cache", "/opt/rch/compiler-cache", "ro"),
            ("/var/cache/sccache", "/var/cache/sccache", "rw"),
            ("/var/cache/ccache", "/var/cache/ccache", "rw"),
        )
        assert given("cc.compile", "gcc -O2 -c a.c") == found

    @pytest.mark.parametrize("kind", ["cmake.build", "ninja", "meson.compile", "go.build"])
    def test_is_left_alone_where_a_compiler_is_called_by_its_whole_path(self, kind):
        assert given(kind, "x") == Caching()


class TestCargo:
    @pytest.mark.parametrize(
        "command",
        [
            "cargo build --release",
            "cargo build -r -p x",
            "cargo test --profile release",
            "cargo build --profile=release",
        ],
    )
    def test_has_a_wrapper_in_a_build_that_is_not_incremental(self, command):
        found = given("cargo.build", command)
        assert found.env["RUSTC_WRAPPER"] == "/usr/bin/sccache"
        assert found.env["SCCACHE_CONF"] == "/opt/rch/compiler-cache/sccache.toml"
        assert found.first == ()

    @pytest.mark.parametrize("command", ["cargo build", "cargo run -- --release", "cargo build --profile dev"])
    def test_has_none_in_an_incremental_build(self, command):
        assert given("cargo.build", command) == Caching()
        assert given("cargo.build", "cargo build --release", {"CARGO_INCREMENTAL": "1"}) == Caching()

    def test_keeps_the_callers_own_wrapper(self):
        assert given("cargo.build", "cargo build --release", {"RUSTC_WRAPPER": "/opt/mine"}) == Caching()
        assert given("cargo.build", "cargo build --release", {"RUSTC_WRAPPER": ""}) == Caching()

    def test_is_given_what_steps_aside_where_the_server_of_sccache_cannot_start(self):
        found = given("cargo.build", "cargo build -r", facts=with_(wrapper=True))
        assert found.env["RUSTC_WRAPPER"] == "/opt/rch/compiler-cache/wrapper"
        assert found.env["SCCACHE_IGNORE_SERVER_IO_ERROR"] == "1"
        assert found.env["SCCACHE_SERVER_UDS"].startswith("/tmp/")

    @pytest.mark.parametrize("backend", ["redis", "s3"])
    def test_has_no_sccache_where_a_job_cannot_reach_the_store(self, backend):
        facts = with_(backend=backend)
        assert given("cargo.build", "cargo build -r", facts=facts).env
        assert given("cargo.build", "cargo build -r", facts=facts, network="none") == Caching()
        assert given("make", "make", facts=facts, network="none").first  # ccache has a directory too

    def test_an_older_sccache_which_listens_on_a_port_needs_a_network_of_the_jobs_own(self):
        old = with_(versions={"/usr/bin/sccache": "sccache 0.4.0-pre.6"})
        assert given("cargo.build", "cargo build -r", facts=old) == Caching()
        found = given("cargo.build", "cargo build -r", facts=old, network="none")
        assert found.env["RUSTC_WRAPPER"]
        assert "SCCACHE_SERVER_UDS" not in found.env

    def test_credentials_are_a_file_there_and_never_a_value(self):
        found = given("cargo.build", "cargo build -r", facts=with_(credentials=True, backend="s3"))
        assert found.env["AWS_SHARED_CREDENTIALS_FILE"] == "/opt/rch/compiler-cache/credentials"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"compiler_cache": {}},
        {"compiler_cache": []},
        with_(place="relative"),
        with_(cc_wrapper="", rustc_wrapper=""),
        with_(seen_at="/a:/b"),
        with_(cc_wrapper=7, rustc_wrapper=["x"]),
    ],
)
def test_a_worker_without_a_cache_or_with_odd_facts_gives_nothing(facts):
    assert given("make", "make", facts=facts) == Caching()
    assert given("cargo.build", "cargo build -r", facts=facts) == Caching()
