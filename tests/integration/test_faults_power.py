"""A worker that goes dark, a disk that is full: the end is truthful, sources stay, no half-written product lies there."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from rch.testing import lab_processes
from rch.testing.callers import alive, caller, jobs, rchd_pid, slots_used, token, until
from rch.testing.lab import EmbeddedWorker
from rch.testing.variants import own_cache

LARGE = 300_000_000
"""Bytes that take long enough on the way to be interrupted."""

MOUNTS = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a loop mount and needs root; CI (root) runs it")


def power_off(worker):
    worker.power_off()


def power_on(worker):
    if isinstance(worker, EmbeddedWorker):
        worker.plug_in()
    else:
        worker.power_on()


@pytest.fixture
def worker(any_state):
    yield any_state.lab.worker
    power_on(any_state.lab.worker)


@pytest.fixture
def project(tmp_path):
    place = tmp_path / "project"
    place.mkdir()
    (place / "source").write_text("content\n")
    return place


def snapshot(place):
    """name -> content of every file."""
    return {name: (place / name).read_bytes() for name in sorted(os.listdir(place))}


def cut_during(state, worker):
    """Power off while a bulk transfer is under way: it waits until the power is off, however long that takes."""
    until(lambda: rchd_pid(state), "rchd runs", timeout_s=30)
    rchd = rchd_pid(state)  # asked once: that is a process of its own, and a transfer may take less

    def stop(number):
        """The pids of the bulk transfers that run for this workstation, after a signal to each."""
        seen = lab_processes.named("rsync") & lab_processes.descendants([rchd])
        for pid in seen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return seen

    until(lambda: stop(signal.SIGSTOP), "the transfer is under way", timeout_s=90)
    stop(signal.SIGSTOP)  # those that it started meanwhile
    power_off(worker)
    stop(signal.SIGCONT)


def eventually_works(state, project):
    """The worker is probed again on its own; within a minute it takes jobs."""

    def works():
        done = state.exec("echo", "back", cwd=project, options=("--worker", state.lab.worker.name))
        return (done.returncode, done.stdout) == (0, b"back\n")

    until(works, "the worker takes jobs again", timeout_s=60)
    until(lambda: not slots_used(state.lab.worker), "every slot is free")


def pinned(state):
    return ["rch", "exec", "--worker", state.lab.worker.name, "--"]


class TestAWorkerThatIsPoweredOff:
    @pytest.mark.slow
    def test_during_the_push_ends_103_and_the_next_push_completes(self, any_state, worker, project):
        (project / "large").write_bytes(os.urandom(LARGE))
        before = snapshot(project)
        with caller(any_state, *pinned(any_state), "sh", "-c", "wc -c <large", cwd=str(project)) as client:
            cut_during(any_state, worker)
            assert client.end(90) == 103, client.err
            assert (client.out, len(client.lines)) == (b"", 1), client.err
        assert snapshot(project) == before
        power_on(worker)
        eventually_works(any_state, project)
        done = any_state.exec("sh", "-c", "wc -c <large", cwd=project, options=("--worker", worker.name))
        assert (done.returncode, done.stdout.strip()) == (0, b"%d" % LARGE), done.stderr

    @pytest.mark.slow  # an rchd waits 20 s for a worker to come back, then its jobs are lost
    def test_during_the_run_ends_103_with_the_truth_for_what_is_not_repeated(self, any_state, worker, project):
        mark = token()
        before = snapshot(project)
        script = f"echo begun; echo half >product; sleep {mark}"
        with caller(any_state, *pinned(any_state), "sh", "-c", script, cwd=str(project)) as client:
            client.wait_for(b"begun")
            power_off(worker)
            until(lambda: not alive(mark), "the power is off")
            assert client.end(90) == 103, client.err
            assert [line.startswith("rch: error[JobLost]") for line in client.lines] == [True], client.err
        assert snapshot(project) == before
        power_on(worker)
        eventually_works(any_state, project)

    def test_during_the_run_and_on_again_is_no_job_that_goes_on(self, any_state, worker, project):
        mark = token()
        script = f"echo begun; echo half >product; sleep {mark}"
        with caller(any_state, *pinned(any_state), "sh", "-c", script, cwd=str(project)) as client:
            client.wait_for(b"begun")
            power_off(worker)
            power_on(worker)
            assert client.end(90) == 103, client.err
        assert not (project / "product").exists()
        eventually_works(any_state, project)

    def test_during_the_return_ends_102_and_rch_fetch_completes_it(self, any_state, worker, project):
        before = snapshot(project)
        script = f"head -c {LARGE} /dev/urandom >product; echo small >other; echo done"
        with caller(any_state, *pinned(any_state), "sh", "-c", script, cwd=str(project)) as client:
            client.wait_for(b"done")
            cut_during(any_state, worker)
            assert client.end(120) == 102, client.err
            (line,) = client.lines
            (job,) = jobs(any_state)
            assert f"rch fetch {job['id']}" in line
        assert job["products"] == "undelivered"
        assert snapshot(project) == before
        power_on(worker)
        eventually_works(any_state, project.parent)
        done = any_state.run("rch", "fetch", job["id"])
        assert done.returncode == 0, done.stderr
        assert (project / "product").stat().st_size == LARGE
        assert (project / "other").read_text() == "small\n"

    @pytest.mark.slow  # an rchd waits 20 s for a worker to come back, then its jobs are lost
    def test_during_the_run_repeats_here_what_may_be_repeated(self, rch_state, embedded_worker, project):
        mark = token()
        (project / "Makefile").write_text(
            f"product: source\n\t@echo begun\n\t@sleep {mark} || true\n\t@cp source product\n"
        )
        try:
            with caller(rch_state, "rch", "exec", "--", "make", cwd=str(project)) as client:
                until(lambda: alive(mark), "the job runs", timeout_s=30)
                embedded_worker.power_off()
                until(lambda: alive(mark), "it runs here", timeout_s=60)
                for pid in alive(mark):
                    os.kill(pid, signal.SIGTERM)
                assert client.end() == 0, client.err
                assert (client.out, len(client.lines)) == (b"begun\n", 1), client.err
        finally:
            embedded_worker.plug_in()
        assert (project / "product").read_text() == "content\n"

    def test_before_the_command_costs_a_moment_and_no_more(self, rch_state, embedded_worker, project):
        (project / "Makefile").write_text("product: source\n\t@cp source product\n")
        eventually_works(rch_state, project)
        embedded_worker.power_off()
        try:
            started = time.monotonic()
            done = rch_state.exec("make", cwd=project)
            assert (done.returncode, time.monotonic() - started < 30) == (0, True), done.stderr
            assert len(done.stderr.splitlines()) == 1
        finally:
            embedded_worker.plug_in()


@pytest.fixture
def small_disk(tmp_path):
    """A function: size in MB -> a directory that is a file system of that size."""
    mounted = []

    def make(name, size_mb):
        image, place = tmp_path / f"{name}.img", tmp_path / name
        with image.open("wb") as file:
            file.truncate(size_mb * 1_000_000)
        place.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, timeout=60)
        mounted.append(place)
        (place / "lost+found").rmdir()
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=False, timeout=60)


def fill(place, leave):
    """Leave *leave* bytes of the file system; the file that takes the rest."""
    path = place / "ballast"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(place).free - leave)
    return path


@MOUNTS
class TestTheWorkersDiskIsFull:
    @pytest.fixture
    def cache(self, rch_state, embedded_worker, small_disk):
        place = small_disk("cache", 64)
        own_cache(rch_state, embedded_worker, str(place / "rch"))
        return place

    @pytest.mark.parametrize("size", [200_000, 5_000_000], ids=["inside a request", "by rsync"])
    def test_for_the_push_and_the_command_runs_here(self, rch_state, cache, project, size):
        (project / "large").write_bytes(os.urandom(size))
        (project / "Makefile").write_text("product: source\n\t@echo building\n\t@cp source product\n")
        ballast = fill(cache, 100_000)
        done = rch_state.exec("make", cwd=project)
        assert (done.returncode, done.stdout) == (0, b"building\n"), done.stderr
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("[rch] local: disk-full: lab1: "), line
        (project / "product").unlink()
        done = rch_state.exec("make", cwd=project, options=("--require-remote",))
        assert (done.returncode, done.stdout) == (103, b""), done.stderr
        assert not (project / "product").exists()
        ballast.unlink()
        done = rch_state.exec("make", cwd=project, options=("--require-remote",))
        assert (done.returncode, done.stdout) == (0, b"building\n"), done.stderr

    def test_for_the_products_and_what_the_build_says_of_it_is_never_lost_in_silence(self, rch_state, cache, project):
        script = "head -c 100000000 /dev/zero >product; status=$?; echo status $status; exit $status"
        done = rch_state.exec("sh", "-c", script, cwd=project, options=("--worker", "lab1"))
        if done.returncode == 1:  # its few words of log found room after all: then the build says it itself
            assert (done.stdout, b"No space left" in done.stderr) == (b"status 1\n", True), done.stderr
        else:
            assert done.returncode == 103, done.stderr
            (line,) = done.stderr.decode().splitlines()
            assert line.startswith("rch: error[JobLost] lab1: the log could not be written (No space left"), line
            assert not (project / "product").exists()
        until(lambda: not slots_of(rch_state, cache), "every slot is free")
        done = rch_state.exec("sh", "-c", "rm -f product; echo ok", cwd=project, options=("--worker", "lab1"))
        assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr

    def test_for_the_log_and_the_end_is_told_all_the_same(self, rch_state, cache, project):
        script = "head -c 100000000 /dev/zero | tr '\\0' x; echo end >&2"
        done = rch_state.exec("sh", "-c", script, cwd=project, options=("--worker", "lab1"))
        assert done.returncode == 103
        assert done.stderr.startswith(b"rch: error[JobLost] lab1: the log could not be written"), done.stderr[-500:]
        until(lambda: not slots_of(rch_state, cache), "every slot is free")


def slots_of(state, cache):
    agent = cache / "rch" / "bin" / "rch-wkr"
    words = ["python3", "-I", agent, "slots", "--cache", cache / "rch"]
    done = subprocess.run(words, capture_output=True, check=True, timeout=30)
    return b'"used": []' not in done.stdout


@MOUNTS
class TestTheDiskHereIsFull:
    @pytest.fixture
    def project(self, small_disk):
        place = small_disk("disk", 48) / "project"
        place.mkdir()
        (place / "source").write_text("content\n")
        return place

    def test_of_the_project_and_the_products_wait_on_the_worker(self, rch_state, project):
        before = snapshot(project)
        script = "head -c 8000000 /dev/urandom >product; echo new >source"
        ballast = fill(project.parent, 1_000_000)
        done = rch_state.exec("sh", "-c", script, cwd=project, options=("--worker", rch_state.lab.worker.name))
        assert done.returncode == 102, done.stderr
        (line,) = done.stderr.decode().splitlines()
        (job,) = jobs(rch_state)
        assert f"rch fetch {job['id']}" in line
        assert "error[DiskFull]" in line
        assert snapshot(project) == before
        done = rch_state.run("rch", "fetch", job["id"])
        assert done.returncode != 0
        assert snapshot(project) == before
        ballast.unlink()
        done = rch_state.run("rch", "fetch", job["id"])
        assert done.returncode == 0, done.stderr
        assert (project / "product").stat().st_size == 8_000_000
        assert (project / "source").read_text() == "new\n"

    def test_of_the_state_directory_and_the_products_wait_on_the_worker(
        self, embedded_lab, new_state, small_disk, tmp_path
    ):
        state = new_state(embedded_lab)
        disk = small_disk("state", 48)
        shutil.copytree(os.path.join(state.state_dir, "facts"), disk / "state" / "facts")
        os.chmod(disk / "state", 0o700)
        state.environment["RCH_STATE_DIR"] = str(disk / "state")
        project = tmp_path / "elsewhere"
        project.mkdir()
        (project / "source").write_text("content\n")
        before = snapshot(project)
        script = "head -c 80000000 /dev/urandom >product"
        try:
            done = state.exec("sh", "-c", script, cwd=project, options=("--worker", "lab1"))
            assert done.returncode == 102, done.stderr
            assert b"error[DiskFull]" in done.stderr
            assert snapshot(project) == before
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                state.run("rch", "daemon", "stop", timeout_s=20)
