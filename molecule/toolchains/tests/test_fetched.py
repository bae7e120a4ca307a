"""box2: what it fetched from servers builds and runs programs like what box1 was given; the cache is in a server."""

import json
import re
import socket
import uuid

import pytest

testinfra_hosts = ["box2"]

BASE = "/home/rch/.rch/toolchains"


@pytest.fixture
def keys(host):
    """A function: how many keys the Redis has in the database that converge.yml names."""

    def count():
        with socket.create_connection((host.ansible.get_variables()["scenario_servers"], 6400), timeout=10) as server:
            server.sendall(b'AUTH "a b%1/:@"\r\nSELECT 3\r\nDBSIZE\r\n')
            answer = b""
            while answer.count(b"\r\n") < 3:
                answer += server.recv(4096)
        okay, selected, size = answer.split(b"\r\n")[:3]
        assert okay == selected == b"+OK", answer
        return int(size.removeprefix(b":"))

    return count


class TestTheVersionsOfC:
    def test_leave_no_link_where_the_distribution_has_the_wanted_one(self, host):
        assert host.check_output("cc -dumpversion") == "12"
        assert not host.file("/usr/local/bin/gcc").exists

    def test_make_the_wanted_clang_the_machines(self, host, sandbox):
        assert host.file("/usr/local/bin/clang").linked_to == "/usr/lib/llvm-14/bin/clang"
        script = "printf 'int puts(const char*);int main(){return puts(\"hello\")<0;}' >/tmp/a.cc; clang++ -o /tmp/a /tmp/a.cc; /tmp/a"
        assert sandbox("c", script.replace("int puts", 'extern "C" int puts')) == "hello"

    def test_come_with_their_tools_and_nothing_of_another_version(self, host):
        for name in ("build-essential", "gcc-12", "clang-14", "llvm-14", "pkg-config", "libssl-dev"):
            assert host.package(name).is_installed
        assert not host.package("clang").is_installed

    @pytest.mark.parametrize("compiler", ["cc", "clang"])
    def test_link_with_mold(self, sandbox, compiler):
        script = f"echo 'int main(void){{return 0;}}' >/tmp/a.c; {compiler} -fuse-ld=mold -o /tmp/a /tmp/a.c; /tmp/a; readelf -p .comment /tmp/a"
        assert "mold" in sandbox("c", script)


class TestRustByRustup:
    def test_is_the_very_compiler_of_the_workstation_at_its_path(self, facts, sandbox):
        (row,) = facts["toolchains"]["rust"]
        assert row["binds"][row["sysroot"]].startswith(f"{BASE}/rust/rustup/toolchains/")
        home = next(place for place in row["binds"] if place.endswith("/.cargo/bin")).removesuffix("/.cargo/bin")
        script = (
            f"mkdir -p {home}; export HOME={home}; cd /tmp; cargo new -q --vcs none x; cd x; cargo run -q; rustc -vV"
        )
        assert sandbox("rust", script) == f"Hello, world!\n{row['identity']}"

    def test_has_the_components_and_targets_that_were_asked_for(self, facts):
        (row,) = facts["toolchains"]["rust"]
        assert {"cargo", "clippy", "rustc", "rustfmt"} <= set(row["components"])
        assert {"wasm32-wasip1", "x86_64-unknown-linux-gnu"} <= set(row["targets"])


def test_go_comes_from_the_archive(host, facts, sandbox):
    (row,) = facts["toolchains"]["go"]
    (place,) = set(row["binds"].values())
    assert re.fullmatch(rf"{BASE}/go/archive-[0-9a-f]{{16}}", place)
    assert not host.file(f"{place}.tar.gz").exists
    script = "mkdir /tmp/home; cd /tmp; printf 'package main\nfunc main() { print(\"hello\") }' >a.go; go run a.go 2>&1; go version"
    assert sandbox("go", script) == f"hello{row['identity']}"


def test_bun_runs_beside_node(facts, sandbox):
    assert facts["toolchains"]["node"][0]["shown"].endswith(", bun 1.3.2")
    assert sandbox("node", "mkdir /tmp/home; bun --version; bun -e 'console.log(1 + 1)'; node -p 3").split() == [
        "1.3.2",
        "2",
        "3",
    ]


class TestTheSharedCache:
    def test_has_the_programs_of_the_administrator_where_there_are_some(self, host, facts):
        about = facts["compiler_cache"]
        assert about["versions"]["/usr/libexec/caches/sccache"] == "sccache 0.16.0"
        assert host.package("ccache").is_installed
        assert not host.package("sccache").is_installed

    def test_names_the_store_and_no_secret(self, facts):
        about = facts["compiler_cache"]
        assert (about["backend"], about["directories"]) == ("redis", ["/var/cache/ccache"])
        assert "a b%1" not in json.dumps(about)

    def test_keeps_c_in_redis_and_answers_from_there(self, host, sandbox, keys):
        before = keys()
        script = (
            f"echo 'int main(void){{return 0;}} /* {uuid.uuid4()} */' >/tmp/a.c; cd /tmp; ccache -z >/dev/null;"
            " cc -c a.c; test -f a.o; ccache --print-stats"
        )
        sandbox("c", script, cached=True, network=True)
        assert keys() > before
        host.check_output("find /var/cache/ccache -mindepth 1 -delete")  # another worker has nothing there
        counts = dict(line.split("\t") for line in sandbox("c", script, cached=True, network=True).splitlines())
        assert int(counts["remote_storage_hit"]) >= 1, counts
        assert int(counts["cache_miss"]) == 0

    def test_keeps_rust_in_redis_and_answers_from_there(self, sandbox, facts, keys):
        before = keys()
        (row,) = facts["toolchains"]["rust"]
        home = next(place for place in row["binds"] if place.endswith("/.cargo/bin")).removesuffix("/.cargo/bin")
        begin = f"mkdir -p {home}; export HOME={home}; cd /tmp; cargo new -q --lib --vcs none x; cd x;"
        build = f"echo '// {uuid.uuid4()}' >>src/lib.rs; cargo build -q --release;"
        stats = f"{facts['compiler_cache']['seen_at']}/sccache --show-stats --stats-format json"
        said = json.loads(sandbox("rust", begin + build + stats, cached=True, network=True))["stats"]
        assert said["cache_misses"]["counts"] == {"Rust": 1}
        assert keys() > before
        # Another job, whose server knows nothing as yet.
        said = json.loads(sandbox("rust", begin + build + stats, cached=True, network=True))["stats"]
        assert (said["cache_hits"]["counts"], said["cache_misses"]["counts"]) == ({"Rust": 1}, {})

    def test_that_cannot_be_reached_leaves_the_build_as_it_is(self, sandbox, facts):
        (row,) = facts["toolchains"]["rust"]
        home = next(place for place in row["binds"] if place.endswith("/.cargo/bin")).removesuffix("/.cargo/bin")
        script = (
            f"mkdir -p {home}; export HOME={home}; cd /tmp; cargo new -q --vcs none x; cd x; cargo run -q --release;"
            " echo 'int main(void){return 0;}' >/tmp/a.c; cc -o /tmp/a /tmp/a.c; /tmp/a"
        )
        assert sandbox("rust", script, cached=True, network=False) == "Hello, world!"
