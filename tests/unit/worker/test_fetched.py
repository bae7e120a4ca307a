"""A fetch step that has run need not run again, as long as what it brought is there."""

import os
import shutil

import pytest

from rch.testing.worker_root import new_job
from rch.worker import _fetched
from rch.worker.cache import Cache

STAMP, OTHER = "a" * 64, "b" * 64
SRC = "$HOME/.cargo/registry/src/index"
UNPACK = f"mkdir -p {SRC}/itoa-1.0.0; echo fetching"


def fetch(worker, main="echo ran", script=UNPACK, stamp=STAMP, **more):
    step = {"argv": ["sh", "-c", script], "timeout_s": 60, "stamp": stamp}
    return worker.run(new_job(), ["sh", "-c", main], cargo_home="/home/caller/.cargo", fetch=[step], **more)


@pytest.fixture
def crates(worker):
    return os.path.join(worker.cache_dir, "caches", "cargo", "registry", "src", "index")


class TestStamp:
    def test_a_step_that_has_succeeded_is_not_repeated(self, worker):
        first, second = fetch(worker), fetch(worker)
        assert (first.stderr, first.stdout) == (b"fetching\n", b"ran\n")
        assert (second.stderr, second.stdout) == (b"", b"ran\n")

    def test_another_stamp_is_another_step(self, worker):
        fetch(worker)
        assert fetch(worker, stamp=OTHER).stderr == b"fetching\n"

    def test_without_a_stamp_it_runs_every_time(self, worker):
        assert [fetch(worker, stamp="").stderr for _ in range(2)] == [b"fetching\n"] * 2

    def test_a_step_that_failed_is_repeated(self, worker):
        assert fetch(worker, script="exit 1").ending == (None, None, "setup")
        assert fetch(worker).stderr == b"fetching\n"

    @pytest.mark.parametrize("gone", ["itoa-1.0.0", ".", "..", "../.."])
    def test_a_crate_that_was_removed_brings_the_step_back(self, worker, crates, gone):
        fetch(worker)
        shutil.rmtree(os.path.normpath(os.path.join(crates, gone)))
        assert fetch(worker).stderr == b"fetching\n"
        assert os.path.isdir(os.path.join(crates, "itoa-1.0.0"))

    def test_the_rest_of_the_shared_cache_may_change(self, worker, crates):
        fetch(worker)
        os.makedirs(os.path.join(crates, "..", "..", "cache", "index"))
        assert fetch(worker).stderr == b""

    def test_a_stamp_is_a_digest_and_no_path(self, worker):
        with pytest.raises(Exception, match="digest"):
            fetch(worker, stamp="../../../../" + "a" * 60)

    def test_a_job_cannot_write_stamps(self, worker):
        fetch(worker, "ls -a ~/.cargo; echo '[]' > ~/.cargo/fetched/" + OTHER)
        assert fetch(worker, stamp=OTHER).stderr == b"fetching\n"

    def test_stamps_of_last_month_go_when_a_new_one_comes(self, worker):
        cache = Cache(worker.cache_dir)
        _fetched.remember(cache, "cargo", OTHER)
        path = os.path.join(worker.cache_dir, "caches", "cargo", "fetched", OTHER)
        os.utime(path, (0, 0))
        _fetched.remember(cache, "cargo", STAMP)
        assert _fetched.known(cache, "cargo", STAMP)
        assert not os.path.exists(path)


class TestMissingSources:
    """What the directories do not show: cargo itself finds a crate that is not whole."""

    CARGO = f"""
        if [ -e {SRC}/itoa-1.0.0/.cargo-ok ]; then echo built; exit 0; fi
        echo 'error: failed to unpack package `itoa v1.0.0`' >&2; exit 101
    """
    UNPACK = f"mkdir -p {SRC}/itoa-1.0.0; touch {SRC}/itoa-1.0.0/.cargo-ok; echo fetching"

    def test_lead_to_a_fetch_and_not_to_a_red_result(self, worker, crates):
        assert fetch(worker, self.CARGO, self.UNPACK).stdout == b"built\n"
        os.unlink(os.path.join(crates, "itoa-1.0.0", ".cargo-ok"))
        result = fetch(worker, self.CARGO, self.UNPACK)
        assert result.ending == (0, None, "exited")
        assert result.stdout == b"built\n"
        assert result.stderr.endswith(b"fetching\n")

    def test_that_the_fetch_cannot_bring_end_the_job_as_they_would(self, worker):
        fetch(worker, self.CARGO, UNPACK)
        result = fetch(worker, self.CARGO, UNPACK)
        assert result.ending == (101, None, "exited")
        assert result.stderr.count(b"failed to unpack") == 2

    def test_a_compilers_error_repeats_nothing(self, worker):
        main = "echo '   Compiling x v1'; echo 'error: failed to get `it`' >&2; exit 101"
        fetch(worker, main)
        result = fetch(worker, main)
        assert result.ending == (101, None, "exited")
        assert result.stdout.count(b"Compiling") == 1
        assert b"fetching" not in result.stderr

    def test_input_that_was_given_once_is_not_asked_for_again(self, worker):
        fetch(worker, "true")
        job = new_job()
        step = {"argv": ["sh", "-c", UNPACK], "timeout_s": 60, "stamp": STAMP}
        main = "cat; echo 'error: failed to get `it`' >&2; exit 101"
        worker.start(job, ["sh", "-c", main], cargo_home="/home/caller/.cargo", fetch=[step], fds={"0": "pipe"})
        worker.request("stdin", {"job": job, "eof": True}, b"once\n")
        result = worker.follow(job)
        assert result.stdout == b"once\n"
        assert result.ending == (101, None, "exited")
