"""The bulk plane's control socket: a Unix socket's path is short, a state directory's need not be."""

from rch.execute.ssh_settings import SshSettings, config_file_text
from rch.paths import AbsPath

SETTINGS = SshSettings(
    name="w",
    host="192.0.2.1", port=22, user="rch", identity_files=(), identities_only=True, known_hosts=("/k",),
    host_key_alias="", proxy_jump="", proxy_command="", connect_timeout_s=5.0,
)  # fmt: skip


def control_path(text: str) -> str:
    return next(line.split(maxsplit=1)[1].strip('"') for line in text.splitlines() if "ControlPath" in line)


class TestTheControlPath:
    def test_leaves_room_for_what_openssh_adds(self):
        directory = AbsPath("/" + "d" * 80)
        text = config_file_text(SETTINGS, directory)
        assert "ControlMaster auto" in text
        assert len(control_path(text)) + 17 <= 107

    def test_is_given_up_where_there_is_no_room(self):
        text = config_file_text(SETTINGS, AbsPath("/" + "d" * 85))
        assert control_path(text) == "none"
        assert "ControlMaster no" in text

    def test_counts_bytes_not_letters(self):
        assert control_path(config_file_text(SETTINGS, AbsPath("/" + "ü" * 45))) == "none"

    def test_escapes_what_openssh_would_expand(self):
        assert control_path(config_file_text(SETTINGS, AbsPath("/a%b"))).startswith("/a%%b/")
