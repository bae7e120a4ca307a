"""The choice of a worker: who may, who may not and why, in which order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rch.project.model import Tool, ToolIdentity
from rch.schedule.choose import Wanted, WorkerView, choose

RUST = ToolIdentity(Tool.RUST, "rustc 1.95.0 (x)", "rustc 1.95.0")
CSS = WorkerView("css", slots_total=8, tools={"rust": frozenset({RUST.identity})}, tags=("heavy",))
YTO = WorkerView("yto", slots_total=4, tools={"rust": frozenset({RUST.identity})})


def names(choice):
    return [c.name for c in choice.candidates]


class TestTheOrderOfAdmissibleWorkers:
    def test_takes_the_first_by_name_when_nothing_else_differs(self):
        assert names(choose(Wanted(), [YTO, CSS])) == ["css", "yto"]

    def test_prefers_the_higher_priority(self):
        assert names(choose(Wanted(), [CSS, replace(YTO, priority=200)])) == ["yto", "css"]

    def test_puts_a_worker_without_enough_free_slots_behind_one_that_has_them(self):
        busy = replace(CSS, slots_used=8, priority=500)
        assert names(choose(Wanted(slots=2), [busy, YTO])) == ["yto", "css"]

    def test_keeps_a_busy_worker_as_candidate_so_that_the_command_can_queue(self):
        assert names(choose(Wanted(slots=2), [replace(CSS, slots_used=8)])) == ["css"]

    def test_counts_a_small_worker_as_free_when_all_its_slots_are(self):
        assert names(choose(Wanted(slots=64), [YTO])) == ["yto"]


class TestOneReasonPerWorker:
    def refusal(self, view, wanted=None):
        choice = choose(wanted or Wanted(tools=(RUST,)), [view])
        assert not choice.candidates
        return choice.refused[view.name]

    def test_te_01_another_compiler_is_a_mismatch_that_prints_both(self):
        code, text = self.refusal(
            replace(CSS, tools={"rust": frozenset({"rustc 1.94"})}, tools_shown={"rust": "rustc 1.94.1"})
        )
        assert code == "toolchain-mismatch"
        assert "rustc 1.94.1" in text
        assert "rustc 1.95.0" in text

    def test_b_07_a_target_needs_its_standard_library_beside_the_same_compiler(self):
        wanted = Wanted(tools=(RUST,), rust_targets=("wasm32-unknown-unknown",))
        other = {"rustc 1.94": frozenset({"wasm32-unknown-unknown"})}
        for there in ({}, {RUST.identity: frozenset({"x86_64-unknown-linux-gnu"})}, other):
            code, text = self.refusal(replace(CSS, rust_targets=there), wanted)
            assert code == "capability-missing"
            assert "wasm32-unknown-unknown" in text
        able = replace(YTO, rust_targets={RUST.identity: frozenset({"wasm32-unknown-unknown"})})
        assert names(choose(wanted, [CSS, able])) == ["yto"]

    def test_te_02_a_command_without_toolchain_needs_none(self):
        assert names(choose(Wanted(), [replace(CSS, tools={})])) == ["css"]

    def test_pm_04_a_clock_off_by_more_than_a_second_returns_no_files(self):
        code, text = self.refusal(replace(CSS, clock_ns=4_200_000_000))
        assert code == "clock-skew"
        assert "4.2 s ahead" in text

    def test_pm_04_half_a_second_is_admissible(self):
        assert names(choose(Wanted(), [replace(CSS, clock_ns=-500_000_000)])) == ["css"]

    def test_pm_04_a_clock_that_jumped_since_the_last_build_of_the_tree_is_refused(self):
        code, text = self.refusal(replace(CSS, clock_ns=900_000_000, clock_then_ns=-900_000_000))
        assert code == "clock-skew"
        assert "moved by 1.8 s" in text

    def test_pm_04_kinds_that_return_nothing_do_not_care(self):
        wanted = Wanted(returns_files=False)
        assert names(choose(wanted, [replace(CSS, clock_ns=4_200_000_000)])) == ["css"]

    def test_ex_09_a_worker_without_sandbox_runs_nothing(self):
        assert self.refusal(replace(CSS, sandbox_ok=False, sandbox_why="bwrap is missing"))[0] == "capability-missing"

    def test_drained_disabled_and_unreachable_workers_say_so(self):
        for state in ("draining", "disabled", "unreachable"):
            assert state in self.refusal(replace(CSS, state=state))[1]

    def test_an_unportable_project_stays_away_from_that_class(self):
        view = replace(CSS, unportable="needs libfoo", worker_class="debian-12-x86_64")
        assert self.refusal(view) == (
            "unportable",
            "project marked unportable on debian-12-x86_64 (needs libfoo)",
        )

    def test_sq_04_a_pin_is_never_swapped(self):
        choice = choose(Wanted(pinned="css"), [replace(CSS, state="unreachable"), YTO])
        assert not choice.candidates
        assert set(choice.refused) == {"css", "yto"}

    def test_a_pin_that_names_nobody_says_so(self):
        assert "no such worker" in choose(Wanted(pinned="nope"), [CSS]).explain()

    def test_a_9_restrictions_add_up(self):
        both = Wanted(allowed=(frozenset({"heavy"}), frozenset({"css", "yto"})))
        assert names(choose(both, [CSS, YTO])) == ["css"]
        assert names(choose(replace(both, blocked=frozenset({"css"})), [CSS, YTO])) == []

    def test_a_9_a_pin_beats_restrictions(self):
        wanted = Wanted(pinned="css", blocked=frozenset({"css"}), allowed=(frozenset({"yto"}),))
        assert names(choose(wanted, [CSS, YTO])) == ["css"]

    def test_an_unknown_score_fails_a_minimum_above_zero_only(self):
        assert self.refusal(CSS, Wanted(min_speed_score=1))[1] == "speed score unknown is below 1"
        assert names(choose(Wanted(min_speed_score=0), [CSS])) == ["css"]


VIEWS = st.lists(
    st.builds(
        WorkerView,
        name=st.sampled_from([f"w{i}" for i in range(6)]),
        state=st.sampled_from(["healthy", "degraded", "unreachable", "draining", "disabled"]),
        slots_total=st.integers(0, 8),
        slots_used=st.integers(0, 8),
        priority=st.integers(0, 3),
        clock_ns=st.integers(-(3 * 10**9), 3 * 10**9),
        sandbox_ok=st.booleans(),
    ),
    unique_by=lambda v: v.name,
)


@given(VIEWS, st.integers(1, 8))
def test_every_worker_is_either_a_candidate_or_has_exactly_one_reason(fleet, slots):
    choice = choose(Wanted(slots=slots), fleet)
    assert {c.name for c in choice.candidates} | set(choice.refused) == {v.name for v in fleet}
    assert not {c.name for c in choice.candidates} & set(choice.refused)


@given(VIEWS, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_fleet(fleet, random):
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert names(choose(Wanted(), fleet)) == names(choose(Wanted(), shuffled))
