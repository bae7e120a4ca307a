"""Requests that name a worker, in the moment in which rchd has begun to serve and has not read the inventory."""

import pytest

from rch.config.places import places
from rch.daemon.rchd import Rchd
from rch.errors import UsageError


@pytest.fixture
def rchd(tmp_path, monkeypatch):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {children: {rch_workers: {hosts: {css: {ansible_host: 192.0.2.1}}}}}\n")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "RCH_STATE_DIR": str(tmp_path / "s")}
    monkeypatch.setenv("RCH_INVENTORY", str(inventory))
    daemon = Rchd(places(env))
    yield daemon
    daemon.store.close()


def test_find_it(rchd):
    assert rchd.switch("css", "drain")["state"] == "draining"


def test_name_those_that_there_are(rchd):
    with pytest.raises(UsageError, match=r"no worker cs in the inventory \(known: css\)"):
        rchd.switch("cs", "drain")
