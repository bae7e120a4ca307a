"""The usual worker is an ordinary account: what a job took the rights from must still be read, changed and removed."""

import os
import shutil
import subprocess
import sys

import pytest

from rch.testing.worker_root import WorkerRoot, new_job
from rch.testing.worker_root import directory_item as d
from rch.testing.worker_root import file_item as f
from rch.worker.build import build

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/usr/bin/python3", os.X_OK) or shutil.which("setpriv") is None,
    reason="becomes another account, which takes root; every other test of this folder covers an ordinary one as it is",
)

NOBODY = 65534


@pytest.fixture
def nobody(make_worker, tmp_path_factory):
    """rch-wkr as an account without rights, its cache in a place that this account can reach."""
    place = f"/var/tmp/rch-test-{os.getpid()}-{os.urandom(4).hex()}"
    os.mkdir(place, 0o755)
    program, starter, cache = f"{place}/rch-wkr", f"{place}/python", f"{place}/cache"
    build(program)
    with open(starter, "w", encoding="ascii") as file:
        file.write(f'#!/bin/sh\nexec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups /usr/bin/python3 "$@"\n')
    os.chmod(starter, 0o755)
    os.mkdir(cache)
    os.chown(cache, NOBODY, NOBODY)
    yield make_worker(cache=cache, program=program, python=starter)
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o222, 0o333, 0o444, 0o555, 0o666])
@pytest.mark.parametrize("uid", [1234, 0])
def test_rights_that_a_job_took_away(nobody, mode, uid):
    root = WorkerRoot(nobody)
    root.hold()
    root.sync(d("p"), f("p/a", b"1"), d("p/q"), f("p/q/b", b"2", mode=0o400))
    result = root.run(f"id -u; chmod {mode:o} p/q p; echo s > secret; chmod 000 secret", uid=uid, user="x")
    assert (result.stdout, result.ending) == (b"%d\n" % uid, (0, None, "exited"))
    delta = root.delta()
    assert delta.bodies == {"secret": b"s\n"}
    assert {path: row[2] for path, row in delta.entries.items() if row[1] == "d"} == {"p": mode, "p/q": mode}
    root.sync(f("p/q/b", b"4"), f("p/c", b"5"), deletes=["p/a", "secret"])
    index = root.index()
    assert set(index) == {"p", "p/q", "p/q/b", "p/c"}
    assert (index["p"][2], index["p/q"][2]) == (mode, mode)
    root.sync(f("p", b"a file now"))
    assert set(root.index()) == {"p"}
    assert os.listdir(os.path.join(root.directory, "trash")) == []
    root.release(collect=True)


def test_ex_09_its_job_has_no_more_rights_than_it(nobody):
    result = nobody.run(new_job(), ["sh", "-c", "cat /etc/shadow; id -u; touch /usr/x"], uid=0, user="root")
    assert result.stdout == b"0\n"
    assert result.stderr.count(b"\n") == 2


def test_where_python_is_outside_the_system_the_job_still_starts(make_worker, tmp_path):
    """A pyenv or a virtual environment of the account: PID 1 takes the system's Python, or its own is shown."""
    assert make_worker(python=sys.executable).run(new_job(), ["echo", "x"]).stdout == b"x\n"
