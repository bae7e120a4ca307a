"""What a machine is after the role: box1 has systemd and the forced command, box2 has neither."""

import shlex
import subprocess
import time

import pytest

CACHE = "/home/rch/.rch"
GATE = "/usr/local/lib/rch/forced-command"
SERVE = f"python3 -I -S {CACHE}/bin/rch-wkr serve --cache {CACHE}"


@pytest.fixture
def name(host):
    return host.ansible.get_variables()["inventory_hostname"]


@pytest.fixture
def ssh(host):
    """A function: words of ssh, a command -> what came of logging in as the account with the workstation's key."""
    about = host.ansible.get_variables()
    base = ["ssh", *shlex.split(about["ansible_ssh_common_args"]), "-o", "BatchMode=yes", "-i", about["rch_ssh_key"]]

    def run(*command, options=(), data=b""):
        words = [*base, *options, f"rch@{about['ansible_host']}", *command]
        return subprocess.run(words, input=data, capture_output=True, timeout=60, check=False)

    return run


@pytest.fixture
def rsync(host):
    about = host.ansible.get_variables()
    shell = f"ssh {about['ansible_ssh_common_args']} -o BatchMode=yes -i {about['rch_ssh_key']}"

    def run(*words):
        words = ["rsync", "-e", shell, *(word.replace("there:", f"rch@{about['ansible_host']}:") for word in words)]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)

    return run


class TestTheAccount:
    def test_has_a_plain_shell_and_no_password(self, host):
        account = host.user("rch")
        assert (account.shell, account.home, account.password) == ("/bin/sh", "/home/rch", "*")

    def test_cannot_plant_a_key_or_an_rc_file(self, host):
        home = host.file("/home/rch")
        assert (home.user, home.mode) == ("root", 0o755)
        for path in (".ssh/authorized_keys", ".profile", ".ssh/rc"):
            assert host.run(f"runuser -u rch -- sh -c 'echo x >>/home/rch/{path}'").rc != 0

    def test_has_a_private_cache_directory(self, host):
        directory = host.file(CACHE)
        assert (directory.user, directory.group, directory.mode) == ("rch", "rch", 0o700)
        assert host.run(f"runuser -u daemon -- ls {CACHE}").rc != 0

    def test_has_its_limits_in_a_session(self, host):
        def limits(words):
            rows = host.check_output(f"{words} cat /proc/self/limits").splitlines()
            return {row[:26].strip(): row[26:].split()[:2] for row in rows[1:]}

        machine, session = limits(""), limits("runuser -u rch --")
        for name, wanted in (("Max open files", 65536), ("Max processes", 16384)):
            hard = machine[name][1]
            # A container may not raise limits: there the account has what root may grant.
            granted = wanted if hard == "unlimited" else min(wanted, int(hard))
            assert session[name] == [str(granted), str(granted)]

    def test_has_a_clock_that_agrees(self, host):
        before = time.time()
        there = float(host.check_output("date +%s.%N"))
        assert before - 1 < there < time.time() + 1

    @pytest.mark.parametrize("program", ["rsync", "zstd", "bwrap", "python3"])
    def test_has_what_rch_needs(self, host, program):
        assert host.exists(program)


class TestTheAdministrator:
    def test_keeps_what_the_machine_says(self, host):
        rules = host.check_output("/usr/sbin/sshd -T -C user=root,host=h,addr=192.0.2.1").splitlines()
        assert "forcecommand none" in rules
        assert "maxsessions 10" in rules
        assert "allowtcpforwarding yes" in rules


class TestSshd:
    def test_was_told_without_being_started_anew(self, host, name):
        if name == "box1":
            assert host.service("ssh").is_running
        else:
            assert "sshd" in host.check_output("ps -o comm= 1")  # the container would be gone

    @pytest.mark.parametrize("forward", [["-R", "0:127.0.0.1:9"], ["-A"], ["-X"]])
    def test_forwards_nothing(self, ssh, forward, name):
        done = ssh("env", options=["-v", "-o", "ExitOnForwardFailure=yes", *forward])
        if forward[0] == "-R":
            assert b"remote port forwarding failed" in done.stderr
        else:
            assert b"SSH_AUTH_SOCK=" not in done.stdout
            assert b"DISPLAY=" not in done.stdout

    def test_opens_no_way_to_another_port(self, ssh):
        done = ssh(options=["-W", "127.0.0.1:22"])
        assert done.returncode != 0
        assert b"SSH-2.0" not in done.stdout

    def test_takes_no_password(self, ssh):
        options = ["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive"]
        done = ssh("true", options=options)
        assert done.returncode == 255
        assert b"Permission denied (publickey)" in done.stderr


class TestWithoutAForcedCommand:
    @pytest.fixture(autouse=True)
    def _box2(self, name):
        if name != "box2":
            pytest.skip("box2 has none, and runs this")

    def test_a_key_gets_a_shell(self, ssh, host):
        assert ssh("id -un").stdout == b"rch\n"
        assert not host.file(GATE).exists


class TestTheForcedCommand:
    @pytest.fixture(autouse=True)
    def _box1(self, name, host):
        if name != "box1":
            pytest.skip("box1 has it, and runs this")
        # What it starts tells that it was started, and as which account.
        agent = "import os, sys\nprint('agent', os.getuid() != 0, *sys.argv[1:])\n"
        host.check_output(
            f"install -d -o rch -m 700 {CACHE}/bin && printf %s {shlex.quote(agent)} >{CACHE}/bin/rch-wkr"
        )

    def test_cannot_be_changed_by_the_account(self, host):
        gate = host.file(GATE)
        assert (gate.user, gate.mode) == ("root", 0o755)

    def test_starts_the_agent_with_its_own_python_and_only_confined(self, ssh):
        assert ssh(f"exec {SERVE}").stdout.decode().split() == [
            "agent",
            "True",
            "serve",
            "--confined",
            "--cache",
            CACHE,
        ]
        assert ssh(f"exec {SERVE} --slots 3").stdout.endswith(b" --slots 3\n")
        assert ssh(f"exec /no/such/{SERVE}").stdout.startswith(b"agent True serve --confined")

    def test_tells_where_home_is(self, ssh):
        assert ssh("printf '<%s>' \"$HOME\"").stdout == b"</home/rch>"

    @pytest.mark.parametrize(
        "asked",
        [
            "",
            "id",
            "/bin/sh -c id",
            f"exec {SERVE} --slots 2; id",
            f"exec {SERVE}\nid",
            f"id; exec {SERVE}",
            "scp -f /etc/passwd",
            "/usr/lib/openssh/sftp-server",
        ],
    )
    def test_refuses_everything_else(self, ssh, asked):
        done = ssh(*([asked] if asked else []))
        assert done.returncode == 126
        assert done.stdout == b""
        assert done.stderr.endswith(b"rch: this key starts rch-wkr and rsync, nothing else\n")

    def test_refuses_a_terminal_a_file_transfer_and_a_variable(self, ssh, host):
        assert b"nothing else" in ssh("sh", options=["-tt"]).stdout
        done = ssh("sftp", options=["-s"])
        assert done.returncode == 126
        assert done.stdout == b""
        said = ssh("sh", options=["-o", "SetEnv=SSH_ORIGINAL_COMMAND=id"])
        assert said.returncode == 126

    def test_evaluates_nothing_of_a_command_of_rsync(self, ssh, host):
        for asked in (
            "rsync --server . /x; touch /tmp/seen",
            "rsync --server $(touch /tmp/seen)",
            "rsync --server `id`",
        ):
            assert b"uid=" not in ssh(asked).stdout
        assert not host.file("/tmp/seen").exists

    def test_lets_rsync_to_and_from_the_trees(self, rsync, tmp_path, host):
        (tmp_path / "file").write_text("content")
        for words in ((), ("--secluded-args",)):
            done = rsync("-a", *words, f"{tmp_path}/", f"there:{CACHE}/roots/probe/")
            assert done.returncode == 0, done.stderr
            assert host.file(f"{CACHE}/roots/probe/file").content_string == "content"
            back = rsync("-a", *words, f"there:{CACHE}/roots/probe/", f"{tmp_path}/back/")
            assert back.returncode == 0, back.stderr
            assert (tmp_path / "back" / "file").read_text() == "content"
            host.check_output(f"rm -rf {CACHE}/roots/probe")

    @pytest.mark.parametrize("words", [(), ("--secluded-args",), ("--old-args",)])
    @pytest.mark.parametrize(
        "path",
        [
            "/etc/passwd",
            "/home/rch/.ssh/authorized_keys",
            f"{CACHE}/bin/rch-wkr",
            f"{CACHE}/roots/../bin/rch-wkr",
            "/proc/1/environ",
            "/root/.ssh/authorized_keys",
        ],
    )
    def test_lets_rsync_read_nothing_else(self, rsync, tmp_path, path, words):
        done = rsync("-a", *words, f"there:{path}", f"{tmp_path}/got")
        assert done.returncode != 0
        assert not (tmp_path / "got").exists() or (tmp_path / "got").stat().st_size == 0

    @pytest.mark.parametrize("path", [f"{CACHE}/bin/rch-wkr", f"{CACHE}/x", "/tmp/x", "/home/rch/.ssh/x", "/dev/shm/x"])
    def test_lets_rsync_write_nothing_else(self, rsync, tmp_path, host, path):
        (tmp_path / "x").write_text("planted")
        rsync("-a", f"{tmp_path}/x", f"there:{path}")
        assert host.run(f"grep -s planted {path}").rc != 0

    def test_lets_rsync_follow_no_link_out_of_the_trees(self, rsync, tmp_path, host):
        host.check_output(f"runuser -u rch -- sh -c 'mkdir -p {CACHE}/roots && ln -sfn /etc {CACHE}/roots/out'")
        done = rsync("-aL", f"there:{CACHE}/roots/out/passwd", f"{tmp_path}/got")
        assert done.returncode != 0
        assert not (tmp_path / "got").exists()
        host.check_output(f"rm {CACHE}/roots/out")

    def test_gives_rsync_no_network_and_no_other_process(self, ssh, rsync, tmp_path, host):
        # A daemon's configuration may name programs: they would run inside the sandbox. This one may not even start.
        (tmp_path / "rsyncd.conf").write_text(
            "use chroot = no\n[all]\n  path = /\n  pre-xfer exec = /usr/bin/touch /tmp/seen\n"
        )
        assert rsync("-a", f"{tmp_path}/rsyncd.conf", f"there:{CACHE}/roots/rsyncd.conf").returncode == 0
        ssh(f"rsync --server --daemon --config={CACHE}/roots/rsyncd.conf .", data=b"@RSYNCD: 31.0\nall\n")
        assert not host.file("/tmp/seen").exists
        host.check_output(f"rm {CACHE}/roots/rsyncd.conf")


def test_no_container_is_given_a_time_service(host):
    """Its clock is its host's; a time service here would have to leave it alone."""
    assert not host.package("chrony").is_installed
