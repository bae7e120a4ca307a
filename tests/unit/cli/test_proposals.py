"""``workers.discovery_enabled``: whether ``rch init`` looks at all for machines that it could propose (coverage D-6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rch.cli.setup import Setup
from rch.cli.terminal import Output


@pytest.mark.parametrize("enabled", [True, False])
def test_hosts_are_proposed_where_the_key_lets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], enabled: bool
) -> None:
    for name in ("RCH_CONFIG", "XDG_CONFIG_HOME", "RCH_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host css\n  HostName 203.0.113.20\n")
    (tmp_path / ".config/rch").mkdir(parents=True)
    (tmp_path / ".config/rch/config.toml").write_text(f"[workers]\ndiscovery_enabled = {str(enabled).lower()}\n")
    assert Setup(Output(), yes=True).discovered_hosts(wanted=False) == []
    assert ("not touched unasked" in capsys.readouterr().err) is enabled
