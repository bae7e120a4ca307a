"""toolchain.toml: each key becomes an input of a role, and nothing else is understood."""

import json
from pathlib import Path

import pytest
import yaml

from rch.config.lock import KEYS, lock_path, main, read_lock, role_variables
from rch.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[3]

WHOLE = """\
[rust]
channel = "nightly"
date = "2026-01-15"
components = ["clippy", "rustfmt", "rust-src"]
targets = ["wasm32-unknown-unknown"]
method = "copy"

[cpp]
gcc_version = "14"
clang_version = "19"

[caching]
rustc_wrapper = "sccache"
cc_wrapper = "ccache"
"""


@pytest.fixture
def lock(tmp_path):
    def read(text):
        (tmp_path / "toolchain.toml").write_text(text)
        return read_lock(str(tmp_path / "toolchain.toml"))

    return read


class TestTheLock:
    def test_d_11_sets_one_input_of_a_role_per_key(self, lock):
        assert role_variables(lock(WHOLE)) == {
            "toolchain_rust_channel": "nightly",
            "toolchain_rust_date": "2026-01-15",
            "toolchain_rust_components": ["clippy", "rustfmt", "rust-src"],
            "toolchain_rust_targets": ["wasm32-unknown-unknown"],
            "toolchain_rust_method": "copy",
            "toolchain_cpp_gcc_version": "14",
            "toolchain_cpp_clang_version": "19",
            "compiler_cache_rustc_wrapper": "sccache",
            "compiler_cache_cc_wrapper": "ccache",
        }
        assert len(role_variables(lock(WHOLE))) == len(KEYS)

    def test_d_11_names_only_inputs_that_the_roles_have(self):
        for key in KEYS.values():
            role = next(r.name for r in (CHECKOUT / "roles").iterdir() if key.variable.startswith(r.name + "_"))
            assert key.variable in yaml.safe_load((CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text())

    def test_of_nobody_is_empty(self, tmp_path):
        assert read_lock(str(tmp_path / "none.toml")) == {}

    def test_lies_beside_the_users_configuration(self):
        assert lock_path({"HOME": "/home/me"}) == "/home/me/.config/rch/toolchain.toml"
        assert lock_path({"HOME": "/home/me", "XDG_CONFIG_HOME": "/x"}) == "/x/rch/toolchain.toml"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[rust]\nchanel = "nightly"\n', 2, "unknown key rust.chanel; did you mean rust.channel?"),
        ('[cpp]\n\ngcc_verison = "12"\n', 3, "unknown key cpp.gcc_verison; did you mean cpp.gcc_version?"),
        ('[caching]\nchannel = "stable"\n', 2, "unknown key caching.channel; did you mean rust.channel?"),
        ('[rusty]\nchannel = "stable"\n', 1, "unknown key rusty; did you mean rust?"),
        ("[cpp]\ngcc_version = 12\n", 2, 'cpp.gcc_version must be a major version in quotes, like "12", got 12'),
        ('[rust]\ncomponents = "clippy"\n', 2, 'rust.components must be a list of components, got "clippy"'),
        ('[rust]\nchannel = "1.95"\n', 2, "rust.channel must be stable, beta, nightly or a version like 1.95.0"),
        ('[rust]\nchannel = "1.95.0"\ndate = "2026-01-15"\n', 3, "rust.date goes with a channel"),
        ('[rust]\nmethod = "curl"\n', 2, "rust.method must be auto, copy, distro, rustup or none"),
        ('[caching]\ncc_wrapper = "distcc"\n', 2, 'caching.cc_wrapper must be ccache, sccache or "", got "distcc"'),
        ("[rust\n", 0, "is no TOML"),
    ],
)
def test_d_11_a_mistake_is_named_with_its_line_and_the_nearest_key(lock, tmp_path, text, line, said):
    with pytest.raises(ConfigError) as caught:
        lock(text)
    assert said in caught.value.message
    assert caught.value.line == line
    assert str(tmp_path / "toolchain.toml") in caught.value.message


def test_is_printed_for_the_playbooks(tmp_path, capsys):
    (tmp_path / "lock.toml").write_text('[rust]\nchannel = "1.95.0"\n')
    assert main(["--file", str(tmp_path / "lock.toml")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["keys"] == {"rust.channel": "1.95.0"}
    assert said["variables"] == {"toolchain_rust_channel": "1.95.0"}
    assert main(["--file", str(tmp_path / "no.toml")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_the_example_shows_every_key():
    assert set(read_lock(str(CHECKOUT / "examples" / "toolchain.toml"))) == set(KEYS)
