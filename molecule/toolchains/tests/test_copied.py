"""box1: each toolchain builds and runs a program as the account, in a sandbox, at the paths that the facts name."""

testinfra_hosts = ["box1"]


def test_c_is_of_the_version_that_was_asked_for(host, sandbox):
    assert host.check_output("cc -dumpversion") == host.check_output("g++ -dumpversion") == "11"
    script = "printf 'int puts(const char *);int main(void){return puts(\"hello\")<0;}' >/tmp/a.c; cc -o /tmp/a /tmp/a.c; /tmp/a"
    assert sandbox("c", script) == "hello"


def test_what_c_projects_need_is_there(host):
    for program in ("cmake", "ninja", "meson", "mold", "pkg-config"):
        assert host.exists(program)
    for name in ("build-essential", "g++", "libssl-dev", "zlib1g-dev", "gcc-11", "g++-11"):
        assert host.package(name).is_installed


def test_rust_is_the_workstations(host, sandbox, facts):
    row = facts["toolchains"]["rust"][0]
    script = "cd /tmp; mkdir home; cargo new -q --vcs none x; cd x; cargo run -q; rustc -vV"
    home = next(place for place in row["binds"] if place.endswith("/.cargo/bin")).removesuffix("/.cargo/bin")
    said = sandbox("rust", script.replace("mkdir home", f"mkdir home; export HOME={home}"))
    assert said == f"Hello, world!\n{row['identity']}"
    assert {"cargo", "clippy", "rustc"} <= set(row["components"])
    assert "x86_64-unknown-linux-gnu" in row["targets"] or "aarch64-unknown-linux-gnu" in row["targets"]


def test_go_is_the_workstations(sandbox, facts):
    script = "mkdir /tmp/home; cd /tmp; printf 'package main\nfunc main() { print(\"hello\") }' >a.go; go run a.go 2>&1; go version"
    assert sandbox("go", script) == f"hello{facts['toolchains']['go'][0]['identity']}"


def test_node_is_the_workstations(sandbox, facts):
    said = sandbox("node", "mkdir /tmp/home; node -p '1 + 1'; node --version; npm --version")
    assert said.splitlines()[:2] == ["2", facts["toolchains"]["node"][0]["identity"].split()[1]]
    assert len(said.splitlines()) == 3


class TestTheCompilerCache:
    def test_is_the_distributions(self, host):
        for name in ("ccache", "sccache"):
            assert host.package(name).is_installed

    def test_is_in_the_facts_without_a_secret(self, facts):
        about = facts["compiler_cache"]
        assert (about["cc_wrapper"], about["rustc_wrapper"]) == ("/usr/bin/ccache", "/usr/bin/sccache")
        assert set(about["directories"]) == {"/var/cache/sccache", "/var/cache/ccache"}

    def test_belongs_to_the_account_alone(self, host, facts):
        for path in (*facts["compiler_cache"]["directories"], facts["compiler_cache"]["place"]):
            assert (host.file(path).user, host.file(path).mode) == ("rch", 0o700)
        for name in ("sccache.toml", "ccache.conf", "credentials"):
            assert host.file(f"{facts['compiler_cache']['place']}/{name}").mode == 0o600

    def test_answers_the_second_time(self, sandbox):
        script = (
            "printf 'int main(void){return 0;}' >/tmp/a.c; cd /tmp; ccache -z >/dev/null;"
            " cc -c a.c; rm a.o; cc -c a.c; test -f a.o; ccache --print-stats"
        )
        counts = dict(line.split("\t") for line in sandbox("c", script, cached=True).splitlines())
        assert int(counts["direct_cache_hit"]) >= 1
