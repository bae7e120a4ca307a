"""What a command would cost, before there is any history (coverage C-6)."""

import pytest

from rch.schedule.estimate import estimate, usual_seconds
from rch.toolchains import kind_named


@pytest.mark.parametrize(
    ("argv", "kind", "seconds"),
    [
        (("cargo", "check"), "cargo.check", 5),
        (("cargo", "check", "--release"), "cargo.check", 5),
        (("cargo", "clippy"), "cargo.clippy", 10),
        (("cargo", "test"), "cargo.test", 30),
        (("cargo", "test", "--release"), "cargo.test", 30),
        (("cargo", "test", "--no-run"), "cargo.test-binary", 30),
        (("cargo", "build", "--release"), "cargo.build", 120),
        (("cargo", "run", "--release"), "cargo.run", 120),
        (("cargo", "build"), "cargo.build", 30),
        (("cargo", "doc"), "cargo.doc", 60),
        (("make",), "make", 60),
        (("make", "check"), "make.test", 30),
        (("ninja",), "ninja", 30),
        (("gcc", "-c", "x.c"), "cc.compile", 2),
        (("rustc", "x.rs"), "rustc", 2),
    ],
)
def test_c_06_the_first_match_says_how_long_it_takes_here(argv, kind, seconds):
    assert usual_seconds(argv, kind_named(kind)) == seconds


def test_c_06_a_faster_worker_is_recommended_with_the_figures():
    found = estimate(
        ("cargo", "check"), kind_named("cargo.check"), tree_bytes=1_250_000, known_there=False, speed_ratio=2.0
    )
    assert (found.transfer_ms, found.run_ms, found.return_ms, found.total_ms) == (100, 2500, 0, 2600)
    assert found.recommend
    assert found.reasoning == "Remote (2.6s) is 48% faster than local (5.0s)"


def test_c_06_a_tree_that_is_known_there_counts_for_a_twentieth():
    cold, warm = (
        estimate(("make",), kind_named("make"), tree_bytes=125_000_000, known_there=known) for known in (False, True)
    )
    assert (cold.transfer_ms, warm.transfer_ms) == (10_000, 500)


def test_c_06_overhead_speaks_for_here():
    found = estimate(("gcc", "x.c"), kind_named("cc.compile"), tree_bytes=50_000_000, known_there=False)
    assert not found.recommend
    assert found.reasoning == "Local (2.0s) preferred over remote (10.0s) due to overhead"
