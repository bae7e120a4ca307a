"""rch's own connections get through the forced command on a real sshd; what it refuses: molecule/worker_base."""

import os
import shlex
from pathlib import Path

import jinja2
import pytest

from rch.daemon.probe import probe_bulk
from rch.execute.ssh import SshExecutor
from rch.fleet import load_registry
from rch.testing.lab import EmbeddedLab, system_python, write_private
from rch.worker.build import build

TEMPLATE = Path(__file__).resolve().parents[2] / "roles" / "worker_base" / "templates" / "forced-command.j2"

pytestmark = pytest.mark.sshd


@pytest.fixture(scope="module")
def forced(lab_place):
    """An embedded worker, with rch-wkr and nothing else, whose key has the forced command."""
    lab = EmbeddedLab(os.path.join(lab_place, "emb-forced"))
    lab.up(with_roles=False)
    try:
        worker = lab.worker
        os.makedirs(f"{worker.cache_dir}/bin", mode=0o700)
        build(f"{worker.cache_dir}/bin/rch-wkr")
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # no HTML
        environment.filters |= {"comment": lambda text: f"# {text}", "quote": shlex.quote}
        gate = Path(lab.directory, "forced-command")
        gate.write_text(
            environment.from_string(TEMPLATE.read_text()).render(
                ansible_managed="by Ansible",
                worker_base_user=worker.user,
                worker_base_cache_dir=worker.cache_dir,
                worker_base_python=system_python(),
            )
        )
        gate.chmod(0o755)
        key = Path(f"{worker.client_key}.pub").read_text()
        write_private(f"{worker.keys}/authorized_keys", f'command="{gate}" {key}')
        yield lab
    finally:
        lab.down()


@pytest.fixture
def executor(forced, tmp_path):
    worker = load_registry(forced.state_dir, forced.inventory).workers["lab1"]
    made = SshExecutor(worker, run_dir=str(tmp_path), client="test")
    yield made
    made.close()


def test_a_shell_is_refused(forced):
    done = forced.worker.run("id")
    assert (done.returncode, done.stdout) == (126, b"")


def test_the_control_channel_gets_through(executor):
    hello = executor.connect()
    assert hello.slots_total >= 1
    assert executor.request("health").fields["ok"] is True


def test_rsync_gets_through_both_ways_and_leaves_nothing(executor, forced, tmp_path):
    executor.connect()
    place = tmp_path / "bulk"
    place.mkdir()
    probe_bulk(executor, str(place))
    assert os.listdir(f"{forced.worker.cache_dir}/caches") == []
