"""What a spec may say, and the sandbox that follows from it: pure."""

import pytest

from rch.testing.worker_process import minimal_spec
from rch.worker._change import split_bodies
from rch.worker._launch import plan_bytes
from rch.worker._sandbox import Host, bwrap_argv, group_lines, job_mounts, passwd_lines, temporary_directories
from rch.worker.cache import Cache
from rch.worker.refusal import Refusal
from rch.worker.spec import Place, parse_spec

JOB = "/w/cache/jobs/j"

TREE = {
    "/": ["bin", "etc", "lib", "opt", "sbin", "usr", "home"],
    "/usr": ["bin", "lib", "local", "share"],
    "/usr/local": ["bin", "sbin", "man"],
    "/opt": ["vendor"],
    "/etc": ["passwd", "group", "hostname", "hosts", "resolv.conf", "shadow", "ssh"],
    "/etc/ssh": ["ssh_config", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"],
    "/run/systemd/resolve": ["stub-resolv.conf"],
}
LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/usr/local/man": "share/man"}
DIRECTORIES = {*TREE, "/usr/bin", "/usr/lib", "/usr/share", "/usr/local/bin", "/usr/local/sbin", "/opt/vendor"}


def host(**changes):
    present = DIRECTORIES | set(LINKS) | {f"{d.rstrip('/')}/{n}" for d, names in TREE.items() for n in names}
    values = {
        "exists": lambda path: path in present,
        "is_directory": lambda path: path in DIRECTORIES and path not in LINKS,
        "link_target": LINKS.get,
        "names": lambda path: sorted(TREE.get(path, [])),
        "real": lambda path: "/run/systemd/resolve/stub-resolv.conf" if path == "/etc/resolv.conf" else path,
        "privileged": False,
    }
    return Host(**{**values, **changes})


def spec(cache="/w/cache", **more):
    return parse_spec({**minimal_spec(["true"]), **more}, Cache(cache))


def argv_of(wanted, *, fetching=False, shared=(), machine=None, cache="/w/cache"):
    mounts = job_mounts(wanted, JOB, shared, fetching=fetching)
    return bwrap_argv(wanted, JOB, cache, mounts, machine or host())


def pairs(argv, option):
    return [(argv[n + 1], argv[n + 2]) for n, word in enumerate(argv) if word == option]


class TestTheSandbox:
    def test_its_namespaces_and_names(self):
        argv = argv_of(spec())
        for option in ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"):
            assert option in argv
        assert argv[argv.index("--uid") + 1] == "1234"
        assert argv[argv.index("--gid") + 1] == "1235"
        assert argv[argv.index("--hostname") + 1] == "workstation"
        for option in ("--die-with-parent", "--as-pid-1"):
            assert option in argv
        assert argv[argv.index("--cap-drop") + 1] == "ALL"
        assert argv[-2:] == ["--remount-ro", "/"]

    def test_the_network_is_shared_only_when_the_spec_says_host(self):
        assert "--unshare-net" not in argv_of(spec(network="host"))
        assert "--unshare-net" in argv_of(spec(network="none"))

    def test_the_system_is_there_read_only_and_links_stay_links(self):
        argv = argv_of(spec())
        assert ("/usr", "/usr") in pairs(argv, "--ro-bind")
        assert ("usr/bin", "/bin") in pairs(argv, "--symlink")
        assert not [target for _, target in pairs(argv, "--bind") if target in ("/usr", "/etc", "/opt")]

    def test_the_caller_replaces_the_worker_in_etc(self):
        bound = {target: source for source, target in pairs(argv_of(spec()), "--ro-bind")}
        for name in ("passwd", "group", "hostname", "hosts"):
            assert bound[f"/etc/{name}"] == f"{JOB}/etc/{name}"

    def test_the_resolver_comes_along_only_with_a_network(self):
        real = "/run/systemd/resolve/stub-resolv.conf"
        assert (real, real) in pairs(argv_of(spec(network="host")), "--ro-bind")
        assert (real, real) not in pairs(argv_of(spec()), "--ro-bind")

    def test_ex_09_where_it_runs_as_root_the_secrets_of_etc_are_covered(self):
        argv = argv_of(spec(), machine=host(privileged=True))
        covered = {target for source, target in pairs(argv, "--ro-bind") if source == "/dev/null"}
        assert covered == {"/etc/shadow", "/etc/ssh/ssh_host_ed25519_key"}

    def test_pm_08_a_mount_point_in_a_system_directory_rebuilds_its_parents_only(self):
        binds = [{"source": "/w/tool", "path": "/usr/local/tool/bin", "mode": "ro"}]
        argv = argv_of(spec(binds=binds))
        bound = pairs(argv, "--ro-bind")
        assert ("/usr", "/usr") not in bound
        assert ("/usr/local", "/usr/local") not in bound
        assert ("/usr/local/bin", "/usr/local/bin") in bound
        assert ("share/man", "/usr/local/man") in pairs(argv, "--symlink")
        assert ("/usr/share", "/usr/share") in bound
        assert argv.index("/w/tool") > argv.index("/usr/local/sbin")

    def test_a_mount_point_that_exists_needs_nothing(self):
        binds = [{"source": "/w/tool", "path": "/usr/local/bin", "mode": "ro"}]
        assert ("/usr", "/usr") in pairs(argv_of(spec(binds=binds)), "--ro-bind")

    def test_ex_09_a_cache_below_a_system_directory_is_covered(self):
        argv = argv_of(spec("/opt/rch"), cache="/opt/rch")
        assert argv[argv.index("--tmpfs") + 1] == "/opt/rch"
        assert "--tmpfs" not in argv_of(spec())

    def test_ex_09_an_account_that_lives_in_opt_shows_nothing_of_its_home(self):
        argv = argv_of(spec(), machine=host(home="/opt/account"))
        assert argv[argv.index("--tmpfs") + 1] == "/opt/account"

    def test_parents_are_mounted_before_what_lies_in_them(self):
        roots = [{"key": "ab" * 16, "path": "/home/caller/p"}, {"key": "cd" * 16, "path": "/home/caller/p/vendor/dep"}]
        wanted = spec(roots=roots, cargo_home="/home/caller/.cargo", tmpdirs=["/tmp", "/home/caller/tmp"])
        shared = [Place("/w/cache/caches/cargo/registry", "/home/caller/.cargo/registry", writable=False)]
        order = [mount.path for mount in job_mounts(wanted, JOB, shared, fetching=False)]
        for above in order:
            for below in order:
                if below.startswith(above + "/"):
                    assert order.index(above) < order.index(below)

    def test_ex_10_only_fetching_may_write_the_shared_caches(self):
        roots = [{"key": "ab" * 16, "path": "/p"}]
        shared = [Place("/w/r", "/home/caller/.cargo/registry", writable=False)]
        wanted = spec(roots=roots, cargo_home="/home/caller/.cargo")
        job = {m.path: m.writable for m in job_mounts(wanted, JOB, shared, fetching=False)}
        fetch = {m.path: m.writable for m in job_mounts(wanted, JOB, shared, fetching=True)}
        assert (job["/p"], job["/home/caller/.cargo/registry"]) == (True, False)
        assert (fetch["/p"], fetch["/home/caller/.cargo/registry"]) == (True, True)

    def test_a_temporary_directory_inside_a_root_belongs_to_the_root(self):
        wanted = spec(roots=[{"key": "ab" * 16, "path": "/p"}], tmpdirs=["/p/tmp", "/var/tmp"])
        assert temporary_directories(wanted) == ["/tmp", "/var/tmp"]

    def test_nothing_of_the_users_own_words_is_on_the_command_line_of_bubblewrap(self):
        wanted = spec(env={"TOKEN": "s3cret"})
        assert not [word for word in argv_of(wanted) if "s3cret" in word]


class TestPasswd:
    OLD = "root:x:0:0:root:/root:/bin/bash\ncaller:x:7:7::/:/bin/sh\nother:x:1234:1:::\n"

    def test_pm_09_the_caller_is_the_only_one_of_that_name_and_number(self):
        lines = passwd_lines(self.OLD, "caller", 1234, 1235, "/home/caller").splitlines()
        assert lines == ["caller:x:1234:1235::/home/caller:/bin/sh", "root:x:0:0:root:/root:/bin/bash"]

    def test_a_home_that_cannot_stand_there_does_not_break_the_file(self):
        assert passwd_lines("", "c", 1, 2, "/a:b").count(":") == 6

    def test_groups(self):
        assert group_lines("a:x:5:\nb:x:6:\n", "b", 5) == "b:x:5:\n"


class TestASpec:
    @pytest.mark.parametrize(
        "more",
        [
            {"argv": []},
            {"argv": [""]},
            {"argv": ["a\0b"]},
            {"argv": "true"},
            {"argv": [1]},
            {"env": {"A": "x\0y"}},
            {"env": {"A=B": "x"}},
            {"env": {"": "x"}},
            {"env": []},
            {"cwd": "relative"},
            {"cwd": "/a/../b"},
            {"cwd": None},
            {"uid": -1},
            {"uid": True},
            {"uid": 2**32 - 1},
            {"user": "a:b"},
            {"user": "a\nroot:x:0"},
            {"hostname": "a/b"},
            {"umask": 0o1000},
            {"home": "x"},
            {"tmpdirs": ["tmp"]},
            {"network": "internet"},
            {"sandbox": "maybe"},
            {"fds": {"0": "socket"}},
            {"fds": {"3": "pipe"}},
            {"timeout_s": 0},
            {"timeout_s": "1"},
            {"timeout_s": float("nan")},
            {"memory_bytes": -1},
            {"cargo_home": "../x"},
            {"fetch": [{"argv": []}]},
            {"fetch": ["cargo"]},
            {"roots": [{"key": "../x", "path": "/p"}]},
            {"roots": [{"key": "ab" * 16, "path": "p"}]},
            {"binds": [{"source": "x", "path": "/p"}]},
            {"binds": [{"source": "~cache/caches/../jobs", "path": "/p"}]},
            {"binds": [{"source": "~cache/caches/cargo/registry", "path": "/p", "mode": "rw"}]},
            {"binds": [{"source": "/w/cache/jobs/other", "path": "/p"}]},
            {"binds": [{"source": "/w", "path": "/p"}]},
            {"files": [{"path": "x", "size": 1}]},
            {"files": [{"path": "/x", "size": -1}]},
        ],
    )
    def test_what_breaks_a_rule_is_refused(self, more):
        with pytest.raises(Refusal) as caught:
            spec(**more)
        assert caught.value.code == "bad-request"

    def test_a_toolchain_of_the_cache_may_be_bound(self):
        binds = [{"source": "~cache/toolchains/rust-1.95", "path": "/home/caller/.rustup/x", "mode": "ro"}]
        assert spec(binds=binds).binds[0].source == "/w/cache/toolchains/rust-1.95"

    def test_defaults_are_the_closed_ones(self):
        least = parse_spec({"argv": ["x"], "cwd": "/"}, Cache("/w/cache"))
        assert (least.network, least.sandboxed, least.fds) == (False, True, {"0": "null", "1": "pipe", "2": "pipe"})

    def test_too_much_environment_is_too_large(self):
        with pytest.raises(Refusal) as caught:
            spec(env={"A": "x" * (5 << 20)})
        assert caught.value.code == "too-large"


class TestThePlanOfPidOne:
    def test_every_byte_survives(self):
        words = ["", "a\nb", "\udcff", "=", " "]
        data = plan_bytes({"cwd": "/a=b"}, words, {"K": "v=\n"}, [3, 5])
        parts = data.split(b"\0")
        assert parts[:2] == [b"1", b"cwd=/a=b"]
        assert parts[2:8] == [b"5", b"", b"a\nb", b"\xff", b"=", b" "]
        assert parts[8:] == [b"1", b"K=v=\n", b"2", b"3", b"5", b""]


class TestBodies:
    def test_are_cut_along_their_table(self):
        assert split_bodies([["a", 2], ["b", 0]], b"xyz") == ({"a": b"xy", "b": b""}, b"z")

    @pytest.mark.parametrize("table", [[["a", 9]], [["a", -1]], [["a"]], ["a"], [["a", True]], [[1, 1]]])
    def test_a_table_that_does_not_fit_is_refused(self, table):
        with pytest.raises(Refusal):
            split_bodies(table, b"xyz")
