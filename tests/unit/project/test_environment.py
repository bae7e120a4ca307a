"""Which variables a job gets."""

from __future__ import annotations

import pytest

from rch.project import job_environment
from rch.toolchains import FREE_COMMAND, KINDS

CALLER = {
    "HOME": "/home/me", "PATH": "/usr/bin:/bin", "USER": "me", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "TERM": "xterm",
    "NO_COLOR": "1", "CARGO_TERM_COLOR": "always", "GCC_COLORS": "x", "RUSTFLAGS": "--cfg x", "RUST_BACKTRACE": "1",
    "CARGO_INCREMENTAL": "0", "CARGO_PROFILE_DEV_DEBUG": "1", "CARGO_TARGET_DIR": "t", "CI": "true", "CC": "clang",
    "CFLAGS": "-O3", "CC_x86_64_unknown_linux_gnu": "gcc", "MAKEFLAGS": "-k", "GOFLAGS": "-mod=vendor", "CGO_ENABLED": "0",
    "NODE_ENV": "test", "CMAKE_BUILD_PARALLEL_LEVEL": "2", "CTEST_OUTPUT_ON_FAILURE": "1", "NINJA_STATUS": "[%f]",
    "PKG_CONFIG_PATH": "/x", "SOURCE_DATE_EPOCH": "1", "TZ": "UTC", "PYTHONPATH": "p", "SOMETHING_ELSE": "s",
    "RCH_WORKER": "w", "RCH_ON_WORKER": "1", "SSH_AUTH_SOCK": "/s", "SSH_CONNECTION": "c", "DISPLAY": ":0",
    "DBUS_SESSION_BUS_ADDRESS": "d", "XDG_RUNTIME_DIR": "/run/user/1", "LD_PRELOAD": "l.so", "TMUX": "t",
    "GITHUB_TOKEN": "t", "CARGO_REGISTRY_TOKEN": "t", "CARGO_REGISTRIES_X_TOKEN": "t", "AWS_ACCESS_KEY_ID": "a",
    "AWS_REGION": "eu", "DB_PASSWORD": "p", "MY_SECRET": "s", "SIGNING_KEY": "k", "OPENAI_API_KEY": "k",
    "npm_config_//r/:_authToken": "t", "NODE_AUTH_TOKEN": "t", "GOPROXY": "https://u:pw@proxy", "CARGO_HOME": "/c",
    "CARGO_HTTP_PROXY": "http://u:p@h",
}  # fmt: skip
NEVER = {
    "RCH_WORKER", "RCH_ON_WORKER", "SSH_AUTH_SOCK", "SSH_CONNECTION", "DISPLAY", "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR", "LD_PRELOAD", "TMUX", "GITHUB_TOKEN", "CARGO_REGISTRY_TOKEN", "CARGO_REGISTRIES_X_TOKEN",
    "AWS_ACCESS_KEY_ID", "AWS_REGION", "DB_PASSWORD", "MY_SECRET", "SIGNING_KEY", "OPENAI_API_KEY",
    "npm_config_//r/:_authToken", "NODE_AUTH_TOKEN", "GOPROXY", "CARGO_HTTP_PROXY",
}  # fmt: skip


class TestTheEnvironmentOfAJob:
    @pytest.mark.parametrize("kind", [*KINDS.values(), FREE_COMMAND], ids=lambda kind: kind.name)
    def test_te_03_has_no_secret_nothing_of_ours_and_nothing_of_this_host(self, kind):
        assert NEVER.isdisjoint(job_environment(kind, CALLER))

    @pytest.mark.parametrize(
        ("kind", "names", "others"),
        [
            (
                "cargo.build",
                (
                    "RUSTFLAGS RUST_BACKTRACE CARGO_INCREMENTAL CARGO_PROFILE_DEV_DEBUG CARGO_TARGET_DIR CI CC CFLAGS "
                    "CC_x86_64_unknown_linux_gnu CARGO_TERM_COLOR NO_COLOR HOME USER PATH LANG LC_ALL TERM TZ PKG_CONFIG_PATH "
                    "SOURCE_DATE_EPOCH CARGO_HOME"
                ),
                "GOFLAGS NODE_ENV PYTHONPATH SOMETHING_ELSE",
            ),
            ("make", "CC CFLAGS MAKEFLAGS CI GCC_COLORS CMAKE_BUILD_PARALLEL_LEVEL", "NODE_ENV SOMETHING_ELSE"),
            ("cmake.build", "CMAKE_BUILD_PARALLEL_LEVEL CTEST_OUTPUT_ON_FAILURE NINJA_STATUS CC", "RUSTFLAGS GOFLAGS"),
            ("cc.compile", "CC CFLAGS GCC_COLORS", "RUSTFLAGS MAKEFLAGS"),
            ("go.build", "GOFLAGS CGO_ENABLED CC", "RUSTFLAGS NODE_ENV"),
        ],
    )
    def test_te_03_has_the_variables_of_its_tool_as_they_are_here(self, kind, names, others):
        found = job_environment(KINDS[kind], CALLER)
        assert {name: found.get(name) for name in names.split()} == {name: CALLER[name] for name in names.split()}
        assert set(others.split()).isdisjoint(found)

    def test_te_03_has_no_value_that_the_caller_has_not(self):
        found = job_environment(KINDS["cargo.build"], {"PATH": "/bin", "HOME": "/h"}, cwd="/w")
        assert found == {"PATH": "/bin", "HOME": "/h", "PWD": "/w"}

    def test_of_a_free_command_has_everything_else(self):
        assert set(job_environment(FREE_COMMAND, CALLER)) == set(CALLER) - NEVER

    def test_gets_what_the_configuration_lists_even_a_secret_but_nothing_of_ours(self):
        listed = {"DB_PASSWORD": "x", "RUSTFLAGS": "-g", "RCH_WORKER": "w"}
        found = job_environment(KINDS["cargo.build"], CALLER, listed)
        assert (found["DB_PASSWORD"], found["RUSTFLAGS"]) == ("x", "-g")
        assert "RCH_WORKER" not in found

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (" -j4 --jobserver-auth=3,4", "-j4"),
            ("k -j --jobserver-fds=3,4 --jobserver-auth=3,4", "k"),
            ("-j8 --jobserver-auth=fifo:/tmp/GMfifo1", "-j8"),
            ("w --jobserver-auth=3,4 -- CC=gcc", "w -- CC=gcc"),
            ("-j", "-j"),
            ("", ""),
        ],
    )
    def test_ex_08_make_flags_lose_the_job_server_of_this_host(self, given, expected):
        found = job_environment(KINDS["make"], {"MAKEFLAGS": given, "CARGO_MAKEFLAGS": given})
        assert found["MAKEFLAGS"].strip() == expected
        assert "CARGO_MAKEFLAGS" not in found

    def test_ic_08_path_has_no_shims(self, tmp_path):
        (tmp_path / "shims").mkdir()
        (tmp_path / "shims/.rch-shims").touch()
        found = job_environment(KINDS["make"], {"PATH": f"{tmp_path}/shims:/usr/bin:/bin"})
        assert found["PATH"] == "/usr/bin:/bin"
