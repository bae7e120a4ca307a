"""What the workers are after site.yml: the real thing is tried, as the account that runs the jobs."""

import json
import shlex
import subprocess

CACHE = "/home/rch/.rch"
SANDBOX = (
    "runuser -u rch -- bwrap --unshare-user --unshare-pid --unshare-net --ro-bind /usr /usr --ro-bind /etc /etc "
    "--symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp "
    "--chdir /tmp /bin/sh -c"
)


def facts(host):
    return json.loads(host.file("/etc/ansible/facts.d/rch.fact").content_string)


def test_a_c_program_compiles_and_runs_in_the_sandbox(host):
    program = 'echo "int puts(const char*);int main(){return puts(\\"hello\\")<0;}" >h.c && cc h.c -o h && ./h'
    done = host.run(f"{SANDBOX} '{program}'")
    assert (done.rc, done.stdout) == (0, "hello\n"), done.stderr


def test_the_facts_know_sandbox_toolchains_and_speed(host):
    found = facts(host)
    assert found["sandbox"]["ok"] is True
    assert {"c", "rust"} <= set(found["toolchains"])
    assert 0 < found["speed_score"] <= 100
    assert found["speed"]["method"] == "compile"


def test_every_cpu_is_a_slot(host):
    done = host.run(f"runuser -u rch -- {CACHE}/bin/rch-wkr slots --cache {CACHE}")
    assert json.loads(done.stdout) == {"total": facts(host)["cores"], "used": [], "free": facts(host)["cores"]}


def test_a_session_of_the_host_is_what_rch_records_of_it(host):
    assert host.file("/etc/ssh/sshd_config.d/50-rch.conf").contains("Match User rch")
    assert host.file(CACHE).mode == 0o700


def test_a_shell_is_refused_where_the_forced_command_is(host):
    about = host.ansible.get_variables()
    words = ["ssh", *shlex.split(about["ansible_ssh_common_args"]), "-o", "BatchMode=yes", "-i", about["rch_ssh_key"]]
    done = subprocess.run(
        [*words, f"rch@{about['ansible_host']}", "id", "-un"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )  # fmt: skip
    if about["inventory_hostname"] == "box2":
        assert (done.returncode, done.stdout) == (126, b"")
        assert b"this key starts rch-wkr and rsync, nothing else" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, b"rch\n")
