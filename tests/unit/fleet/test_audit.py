"""What of a worker is not as the lock or this machine wants it."""

import pytest

from rch.fleet.audit import differences

STABLE = "rustc 1.95.0 (5980 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22"
NIGHTLY = "rustc 1.97.0-nightly (abcd 2026-01-14)\nrelease: 1.97.0-nightly\nLLVM version: 22"
FACTS = {
    "toolchains": {
        "rust": [
            {"identity": STABLE, "shown": "rustc 1.95.0", "name": "", "components": ["clippy"], "targets": ["x86"]},
            {
                "identity": NIGHTLY,
                "shown": "rustc 1.97.0-nightly",
                "name": "nightly-2026-01-15-x86_64-unknown-linux-gnu",
                "components": ["rust-src"],
                "targets": [],
            },
        ],
        "go": [{"identity": "go version go1.26.8 linux/amd64", "shown": "go1.26.8"}],
    },
    "programs": {"gcc": "gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "clang": "Debian clang version 14.0.6"},
    "compiler_cache": {"cc_wrapper": "/usr/bin/ccache"},
}
HERE = {"rust": (STABLE, "rustc 1.95.0"), "go": ("go version go1.26.8 linux/amd64", "go1.26.8")}
WANTED = {
    "rust.channel": "1.95.0",
    "rust.components": ["clippy"],
    "rust.targets": ["x86"],
    "cpp.gcc_version": "12",
    "cpp.clang_version": "14",
    "caching.cc_wrapper": "ccache",
    "caching.rustc_wrapper": "",
}


def test_a_worker_as_wanted_has_no_differences():
    assert differences(FACTS, WANTED, HERE) == []
    assert differences(FACTS, {"rust.channel": "nightly", "rust.date": "2026-01-15"}, HERE) == []
    assert differences(FACTS, {}, HERE) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rust.channel", "1.94.1", "rust: 1.94.1 is wanted, has rustc 1.95.0, rustc 1.97.0-nightly"),
        ("rust.components", ["rust-src"], "rust: component rust-src is wanted and not there"),
        ("rust.targets", ["wasm32"], "rust: target wasm32 is wanted and not there"),
        ("cpp.gcc_version", "14", "cpp: gcc 14 is wanted, has gcc (Debian 12.2.0-14+deb12u1) 12.2.0"),
        ("cpp.clang_version", "19", "cpp: clang 19 is wanted, has Debian clang version 14.0.6"),
        ("caching.cc_wrapper", "", "caching: cc_wrapper none is wanted, has ccache"),
        ("caching.rustc_wrapper", "sccache", "caching: rustc_wrapper sccache is wanted, has none"),
    ],
)
def test_d_11_each_key_of_the_lock_is_looked_at(key, value, said):
    assert differences(FACTS, {**WANTED, key: value}, HERE) == [said]


def test_a_date_is_that_of_the_toolchain_and_not_of_its_commit():
    lock = {"rust.channel": "nightly", "rust.date": "2026-01-16"}
    assert differences(FACTS, lock, HERE)[0].startswith("rust: nightly-2026-01-16 is wanted")


def test_what_the_lock_leaves_open_is_compared_with_this_machine():
    newer = {"go": ("go version go1.27 linux/amd64", "go1.27"), "node": ("node v20", "node v20")}
    assert differences(FACTS, {}, newer) == [
        "go: this machine has go1.27, it has go1.26.8",
        "node: this machine has node v20, it has none",
    ]
    assert differences(FACTS, {"rust.method": "none"}, {"rust": ("other", "rustc 9")}) == []


@pytest.mark.parametrize(
    "odd", [{"toolchains": 3, "programs": [], "compiler_cache": "x"}, {"toolchains": {"rust": [1]}}]
)
def test_odd_facts_are_differences_and_no_crash(odd):
    assert len(differences(odd, WANTED, HERE)) >= 3
