"""Somebody ends before the command does: the client, rchd, the connection, the worker's processes."""

import contextlib
import json
import os
import signal
import time

import pytest

from rch.testing import lab_processes
from rch.testing.callers import alive, caller, jobs, rchd_pid, slots_used, token, until
from rch.testing.lab import EmbeddedWorker

SCRIPT = """\
echo run >>runs
echo begun
sleep {mark} || true
cp source product
echo ended
"""

BUILD = ("sh", "build.sh")
"""Not make: a container's C packages are not this machine's, so that no product of a C build may come from there."""

LINES = 40


class Project:
    """A script, also as the one recipe of a Makefile, that waits until the test ends its ``sleep``."""

    def __init__(self, place):
        self.place = str(place)
        self.mark = token()
        os.makedirs(self.place)
        self.write("build.sh", SCRIPT.format(mark=self.mark))
        self.write("Makefile", "product: source\n\t@sh build.sh\n")
        self.write("source", "content\n")

    def write(self, name, text):
        with open(os.path.join(self.place, name), "w", encoding="utf-8") as file:
            file.write(text)

    def has(self, name):
        return os.path.exists(os.path.join(self.place, name))

    def read(self, name):
        with open(os.path.join(self.place, name), encoding="utf-8") as file:
            return file.read()

    def runs(self):
        return self.read("runs").count("run") if self.has("runs") else 0

    def go_on(self):
        until(lambda: alive(self.mark), "the recipe waits")
        for pid in alive(self.mark):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path / "project")
    yield made
    for pid in alive(made.mark):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def there(any_state):
    """argv of ``rch exec`` on the one worker: output is not held back, and never a local run."""
    return any_state, ["rch", "exec", "--worker", any_state.lab.worker.name, "--"]


def clean(state, mark):
    """Nothing of the job, no slot: within 10 s, it is promised; a machine that runs other tests too gets more."""
    until(lambda: not alive(mark), f"sleep {mark} is gone", timeout_s=40)
    until(lambda: not slots_used(state.lab.worker), "every slot is free", timeout_s=40)


def next_works(state, project):
    done = state.exec("echo", "still here", cwd=project.place, options=("--worker", state.lab.worker.name))
    assert (done.returncode, done.stdout) == (0, b"still here\n"), done.stderr


class TestTheCallerEnds:
    @pytest.mark.parametrize("name", ["INT", "TERM"])
    def test_ex_02_by_a_signal_and_so_does_the_job(self, there, project, name):
        state, words = there
        number = getattr(signal, f"SIG{name}")
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            started = time.monotonic()
            client.signal(number)
            assert client.end() in (128 + number, -number)
            assert time.monotonic() - started < 20  # 2 s are promised
        clean(state, project.mark)
        assert not project.has("product")
        next_works(state, project)

    def test_ex_02_by_a_signal_before_the_job_has_output(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            time.sleep(0.3)
            client.signal(signal.SIGINT)
            assert client.end() in (130, -2)
        clean(state, project.mark)
        next_works(state, project)

    def test_ex_02_while_the_job_ignores_the_signal(self, there, project):
        state, words = there
        script = f"trap '' INT TERM; echo begun; while :; do sleep {project.mark}; done"
        with caller(state, *words, "sh", "-c", script, cwd=project.place) as client:
            client.wait_for(b"begun")
            client.signal(signal.SIGTERM)
            assert client.end() in (143, -15)
        clean(state, project.mark)

    def test_ex_03_by_sigkill_and_the_job_goes_on_until_an_identical_command_collects_it(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            client.signal(signal.SIGKILL)
            client.end()
        time.sleep(1)
        (listed,) = jobs(state)
        assert (listed["state"], listed["command"]) == ("running", list(BUILD))
        assert alive(project.mark)
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")  # the whole output, from its start
            assert not project.has("product")
            project.go_on()
            assert client.end() == 0, client.err
            assert client.out == b"begun\nended\n"
        assert project.has("product")
        assert project.runs() == 1
        assert [job["state"] for job in jobs(state)] == ["done"]
        clean(state, project.mark)

    def test_ex_03_by_sigkill_and_nothing_is_placed_until_somebody_asks(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            client.signal(signal.SIGKILL)
            client.end()
        project.go_on()
        until(lambda: jobs(state)[0]["state"] == "done", "the job has ended")
        assert jobs(state)[0]["products"] == "undelivered"
        assert not slots_used(state.lab.worker)
        time.sleep(0.5)
        assert sorted(os.listdir(project.place)) == ["Makefile", "build.sh", "source"]
        done = state.exec(*BUILD, cwd=project.place, options=("--worker", state.lab.worker.name))
        assert (done.returncode, done.stdout) == (0, b"begun\nended\n"), done.stderr
        assert (project.runs(), project.has("product")) == (1, True)
        assert [job["products"] for job in jobs(state)] == ["verified"]

    def test_ex_03_by_sigkill_and_rch_fetch_brings_the_products(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            client.signal(signal.SIGKILL)
            client.end()
        project.go_on()
        until(lambda: jobs(state)[0]["state"] == "done", "the job has ended")
        done = state.run("rch", "fetch", jobs(state)[0]["id"])
        assert done.returncode == 0, done.stderr
        assert (project.runs(), project.has("product")) == (1, True)


class TestRchdEnds:
    def test_by_sigkill_and_the_output_has_neither_gap_nor_repetition(self, there, project):
        state, words = there
        script = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; echo made >product"
        project.write("build.sh", script)
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"line 5\n")
            killed = rchd_pid(state)
            os.kill(killed, signal.SIGKILL)
            assert client.end() == 0, client.err
            assert client.out == b"".join(b"line %d\n" % n for n in range(LINES))
        assert project.read("product") == "made\n"
        assert rchd_pid(state) not in (0, killed)
        assert [job["products"] for job in jobs(state)] == ["verified"]
        clean(state, project.mark)
        next_works(state, project)

    def test_by_sigkill_twice_within_one_command(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            for _ in range(2):
                os.kill(rchd_pid(state), signal.SIGKILL)
                until(lambda: rchd_pid(state), "rchd is back")
            project.go_on()
            assert client.end() == 0, client.err
            assert client.out == b"begun\nended\n"
        assert (project.runs(), project.has("product")) == (1, True)

    def test_by_a_stop_and_the_command_goes_on(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            assert state.run("rch", "daemon", "restart").returncode == 0
            project.go_on()
            assert client.end() == 0, client.err
            assert client.out == b"begun\nended\n"
        assert project.has("product")

    def test_after_its_client_by_sigkill_and_the_job_is_still_collected_once(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            client.signal(signal.SIGKILL)
            client.end()
        os.kill(rchd_pid(state), signal.SIGKILL)
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            project.go_on()
            assert client.end() == 0, client.err
        assert (project.runs(), project.has("product")) == (1, True)

    @pytest.mark.parametrize("when", ["at once", "when it is back"])
    def test_ex_02_and_ctrl_c_still_ends_the_job(self, there, project, when):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            os.kill(rchd_pid(state), signal.SIGKILL)
            if when == "when it is back":
                until(lambda: rchd_pid(state), "rchd is back")
            client.signal(signal.SIGINT)
            assert client.end() in (130, -2)
        clean(state, project.mark)
        next_works(state, project)


def cut_connections(worker):
    """SIGKILL to every sshd that serves a connection; the listener stays."""
    if isinstance(worker, EmbeddedWorker):
        for pid in lab_processes.descendants([worker.sshd_pid()], named="sshd"):
            os.kill(pid, signal.SIGKILL)
    else:
        worker.run("sh", "-c", 'for pid in $(pgrep -x sshd); do [ "$pid" = 1 ] || kill -9 "$pid"; done')


class TestTheConnectionEnds:
    def test_by_sigkill_of_sshd_and_the_command_goes_on(self, there, project):
        state, words = there
        script = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; echo made >product"
        project.write("build.sh", script)
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"line 5\n")
            cut_connections(state.lab.worker)
            assert client.end() == 0, client.err
            assert client.out == b"".join(b"line %d\n" % n for n in range(LINES))
        assert project.read("product") == "made\n"
        clean(state, project.mark)
        next_works(state, project)

    def test_between_two_commands_and_the_second_does_not_notice(self, there, project):
        state, _ = there
        next_works(state, project)
        cut_connections(state.lab.worker)
        next_works(state, project)


class TestTheWorkersProcessesEnd:
    def supervisors(self, mark):
        """Pids of the processes that supervise the job with *mark*: the parents of its sandbox."""
        found = set()
        for pid in alive(mark):
            child, sandboxed = pid, False
            while child > 1:
                with open(f"/proc/{child}/stat", encoding="utf-8", errors="replace") as file:
                    stat = file.read()
                name, parent = stat[stat.index("(") + 1 : stat.rindex(")")], int(stat.rpartition(")")[2].split()[1])
                if sandboxed and name != "bwrap":
                    found.add(child)
                    break
                sandboxed = sandboxed or name == "bwrap"
                child = parent
        return found

    def test_ex_02_a_supervisor_that_is_killed_takes_its_job_along_and_the_end_is_told_truthfully(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            until(lambda: alive(project.mark), "the recipe waits")
            (pid,) = self.supervisors(project.mark)
            os.kill(pid, signal.SIGKILL)
            assert client.end() == 103, client.err
            assert sum(b"rch: error[JobLost]" in line for line in client.err.splitlines()) == 1
        clean(state, project.mark)
        assert not project.has("product")
        assert jobs(state)[0]["state"] == "lost"
        next_works(state, project)

    def test_sq_06_a_lost_job_of_a_kind_that_may_be_repeated_runs_here(self, rch_state, project):
        with caller(rch_state, "rch", "exec", "--", "make", cwd=project.place) as client:
            until(lambda: alive(project.mark), "the recipe waits", timeout_s=60)
            (pid,) = self.supervisors(project.mark)
            there = set(alive(project.mark))
            os.kill(pid, signal.SIGKILL)
            # Those of there live for a moment more, without a supervisor.
            until(lambda: set(alive(project.mark)) - there and not there & set(alive(project.mark)), "it waits here")
            project.go_on()
            assert client.end() == 0, client.err
            assert client.out == b"begun\nended\n"
            assert len(client.lines) == 1
        assert (project.runs(), project.has("product")) == (1, True)


class TestAJobThatIsCancelled:
    def test_by_rch_cancel_ends_the_command_too(self, there, project):
        state, words = there
        with caller(state, *words, *BUILD, cwd=project.place) as client:
            client.wait_for(b"begun")
            (job,) = json.loads(state.run("rch", "jobs", "--active", "--json").stdout)
            assert state.run("rch", "cancel", job["id"]).returncode == 0
            assert client.end() != 0
        clean(state, project.mark)
        assert not project.has("product")
        next_works(state, project)
