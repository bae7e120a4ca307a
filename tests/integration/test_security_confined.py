"""A caller in a sandbox gets nothing from rchd that the sandbox does not give it."""

import json
import os
import shutil

import pytest

from rch.testing.callers import rchd_pid
from rch.testing.lab_provision import program

MAKEFILE = """\
product: source
	@echo building
	@cp source product
"""


@pytest.fixture
def places(tmp_path):
    """(the directory that the sandbox may write, another repository)."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for place in (mine, other):
        place.mkdir()
        (place / "Makefile").write_text(MAKEFILE)
        (place / "source").write_text("content\n")
    return mine, other


def sandbox(writable, *options):
    """argv in front of a command: everything read-only but *writable*."""
    words = [program("bwrap"), "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    return [*words, "--bind", str(writable), str(writable), *options]


def names(place):
    return sorted(os.listdir(place))


def ask(state, before, *options, cwd, command=("make",), env=None):
    return state.run(*before, "rch", "exec", *options, "--", *command, cwd=cwd, env=env)


class TestACallerInASandbox:
    @pytest.fixture(autouse=True)
    def running(self, rch_state):
        """rchd of the user's session, started outside of any sandbox."""
        assert rch_state.run("rch", "daemon", "start").returncode == 0

    def test_se_08_builds_on_the_worker_what_it_may_write(self, rch_state, places):
        mine, _ = places
        done = ask(rch_state, sandbox(mine), "--require-remote", cwd=mine)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"building\n", b"")
        assert (mine / "product").read_text() == "content\n"

    def test_se_08_cannot_have_rchd_write_another_repository(self, rch_state, places):
        mine, other = places
        before = names(other)
        done = ask(rch_state, sandbox(mine), "--require-remote", cwd=other)
        assert done.returncode == 103, done.stderr
        assert b"cannot write there" in done.stderr
        assert names(other) == before

    def test_se_08_and_the_run_here_instead_is_its_own_child(self, rch_state, places):
        mine, other = places
        before = names(other)
        done = ask(rch_state, sandbox(mine), cwd=other)
        assert done.returncode == 2, done.stderr  # make: cp says "Read-only file system"
        assert b"[rch] local: path-not-proved: " in done.stderr
        assert b"Read-only file system" in done.stderr
        assert names(other) == before

    def test_se_08_cannot_reach_another_repository_by_a_link(self, rch_state, places):
        mine, other = places
        (mine / "dep").symlink_to(other)
        before = names(other)
        done = ask(
            rch_state, sandbox(mine), "--worker", "lab1", cwd=mine, command=("sh", "-c", "echo x >dep/source; :>dep/y")
        )
        assert done.returncode in (0, 103), done.stderr
        assert names(other) == before
        assert (other / "source").read_text() == "content\n"

    def test_se_08_cannot_show_rchd_another_directory_under_that_path(self, rch_state, places):
        mine, other = places
        before = names(other)
        # Inside, *other* is the caller's own writable directory; outside it is somebody else's.
        done = ask(rch_state, sandbox(mine, "--bind", str(mine), str(other)), "--require-remote", cwd=other)
        assert done.returncode == 103, done.stderr
        assert names(other) == before

    def test_se_08_cannot_have_rchd_run_a_command_of_the_projects_configuration(self, rch_state, places, tmp_path):
        mine, _ = places
        (mine / ".rch").mkdir()
        mark = tmp_path / "mark"
        hooks = "\n".join(f'{name} = "touch {mark}"' for name in ("pre_transfer", "post_compile", "on_fallback"))
        (mine / ".rch" / "config.toml").write_text(f"[hooks]\n{hooks}\n")
        done = ask(rch_state, sandbox(mine), cwd=mine)
        assert done.returncode == 0, done.stderr
        assert not mark.exists()


class TestACallerThatMayNotConnect:
    @pytest.fixture
    def spooled(self, rch_state, places):
        """argv in front of a command that finds no socket: rchd is reached through the spool."""
        assert rch_state.run("rch", "daemon", "start").returncode == 0
        socket = os.path.join(rch_state.state_dir, "run", "rchd.sock")
        mine, _ = places
        (mine / "tmp").mkdir()
        return sandbox(mine, "--ro-bind", "/dev/null", socket)

    def test_builds_through_the_spool(self, rch_state, places, spooled):
        mine, _ = places
        done = ask(rch_state, spooled, "--require-remote", cwd=mine, env={"TMPDIR": str(mine / "tmp")})
        assert (done.returncode, done.stdout, done.stderr) == (0, b"building\n", b"")
        assert (mine / "product").read_text() == "content\n"
        assert names(mine / "tmp") == []

    def test_ex_10_gets_a_job_with_a_loopback_and_nothing_more(self, rch_state, places, spooled):
        mine, _ = places
        command = ("sh", "-c", "sed 1,2d /proc/net/dev | cut -d: -f1")
        options = ("--worker", "lab1")
        done = ask(rch_state, spooled, *options, cwd=mine, command=command, env={"TMPDIR": str(mine / "tmp")})
        assert done.stdout.split() == [b"lo"], done.stderr
        here = rch_state.exec(*command, cwd=mine, options=options).stdout.split()
        with open("/proc/net/dev", encoding="ascii") as file:
            assert len(here) == len(file.readlines()) - 2  # the worker's own, for who may connect

    def test_se_08_cannot_have_rchd_write_another_repository(self, rch_state, places, spooled):
        mine, other = places
        before = names(other)
        done = ask(rch_state, spooled, "--require-remote", cwd=other, env={"TMPDIR": str(mine / "tmp")})
        assert done.returncode == 103, done.stderr
        assert b"cannot write there" in done.stderr
        assert names(other) == before


class TestTheFirstCallOfAll:
    @pytest.mark.parametrize("how", ["a PID namespace and a private /tmp", "no_new_privs alone"])
    def test_ds_10_from_a_sandbox_starts_no_rchd_in_it(self, rch_state, tmp_path, how):
        home = os.path.join(rch_state.directory, "project")  # not below /tmp, which the sandbox replaces
        os.mkdir(home)
        with open(os.path.join(home, "Makefile"), "w", encoding="utf-8") as file:
            file.write(MAKEFILE)
        shutil.copy(os.path.join(home, "Makefile"), os.path.join(home, "source"))
        before = (
            [program("bwrap"), "--dev-bind", "/", "/", "--tmpfs", "/tmp", "--unshare-pid", "--proc", "/proc"]
            if how.startswith("a PID")
            else [program("setpriv"), "--no-new-privs"]
        )
        done = ask(rch_state, before, cwd=home)
        assert (done.returncode, done.stdout) == (0, b"building\n"), done.stderr
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("[rch] local: no-daemon: "), line
        assert "may not start it" in line
        assert rchd_pid(rch_state) == 0
        assert daemons_of(rch_state) == []
        done = ask(rch_state, before, "--require-remote", cwd=home)
        assert done.returncode == 103
        assert json.loads(rch_state.run("rch", "daemon", "status", "--json").stdout)["running"] is False


def daemons_of(state):
    """Processes with this workstation's state directory in their environment."""
    wanted = f"RCH_STATE_DIR={state.state_dir}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
    return found
