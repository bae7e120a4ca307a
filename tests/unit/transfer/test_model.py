"""Any history of edits, jobs on two workers, policies and crashes keeps the two promises of a transfer.

After a push the worker's tree is the manifest, but for its own build directory. After a return every path in scope is
what it is on the worker, but for listed conflicts. The worker side is the real one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rch.transfer import BuildDir, ConflictKind, roll_forward

TREE = ("a", "b", "d", "d/a", "d/b", "d/e/f", "Cargo.lock", "lnk")
IGNORED = ("note.log", "d/note.log")
BUILD = ("target/x", "target/s", "target/s/y", "target/s/z", "target/link")
DEEP = int(os.environ.get("RCH_MODEL_EXAMPLES", "40"))

tree_paths = st.sampled_from(TREE)
build_paths = st.sampled_from(BUILD)
any_paths = st.sampled_from(TREE + IGNORED + BUILD)
contents = st.sampled_from(["", "1", "2", "three"])
workers = st.sampled_from(["w1", "w2"])
policies = st.sampled_from([BuildDir.FULL, BuildDir.FULL, BuildDir.NONE])
actions = st.one_of(
    st.tuples(st.just("write"), any_paths, contents),
    st.tuples(st.just("write"), any_paths, contents),
    st.tuples(st.just("delete"), any_paths, st.just("")),
    st.tuples(st.just("mkdir"), any_paths, st.just("")),
    st.tuples(st.just("link"), any_paths, st.sampled_from(["a", "nowhere", "/etc"])),
    st.tuples(st.just("hard"), any_paths, any_paths),
    st.tuples(st.just("chmod"), any_paths, st.sampled_from(["600", "755"])),
    st.tuples(st.just("touch"), any_paths, st.sampled_from(["1000", "2000000000000000000"])),
    st.tuples(st.just("rename"), any_paths, any_paths),
    st.tuples(st.just("append"), any_paths, contents),
)
scripts = st.lists(actions, max_size=6)


def act(base: Path, action: tuple[str, str, str]) -> None:
    """One change of a tree, as far as it is possible there."""
    verb, path, value = action
    target = base / path
    if any(p.is_symlink() or (p.exists() and not p.is_dir()) for p in target.parents if base in p.parents):
        return
    present = target.is_symlink() or target.exists()
    is_dir = target.is_dir() and not target.is_symlink()
    if verb in ("write", "mkdir", "link", "hard"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if present and not (verb == "mkdir" and is_dir):
            shutil.rmtree(target) if is_dir else target.unlink()
        if verb == "write":
            target.write_text(value)
        elif verb == "mkdir":
            target.mkdir(exist_ok=True)
        elif verb == "link":
            target.symlink_to(value)
        elif (base / value).is_file() and not (base / value).is_symlink() and value != path:
            os.link(base / value, target)
    elif not present:
        return
    elif verb == "delete":
        shutil.rmtree(target) if is_dir else target.unlink()
    elif verb == "chmod" and not target.is_symlink():
        target.chmod(int(value, 8) | (0o700 if is_dir else 0))
    elif verb == "touch":
        os.utime(target, ns=(int(value), int(value)), follow_symlinks=False)
    elif verb == "append" and target.is_file() and not target.is_symlink():
        with target.open("a") as stream:
            stream.write(value)
    elif verb == "rename" and not value.startswith(path) and not path.startswith(value):
        with contextlib.suppress(OSError):
            (base / value).parent.mkdir(parents=True, exist_ok=True)
            target.rename(base / value)


class Transfers(RuleBasedStateMachine):
    make_world = None
    look = None

    @initialize()
    def start(self):
        self.base = Path(tempfile.mkdtemp(prefix="rch-model-"))
        self.world = type(self).make_world(self.base, ignored={"note.log"})
        self.shared = {"w1": set(), "w2": set()}
        for path in ("a", "d/a"):
            self.world.write(path, "0")
        for number in range(20):  # a tree that loses most of its files is refused, see test_hostile
            self.world.write(f"src/{number}", "kept")

    def teardown(self):
        if hasattr(self, "base"):
            shutil.rmtree(self.base, ignore_errors=True)

    def local(self):
        return type(self).look(self.world.here)

    def there(self, worker):
        """The worker's tree with logical times (a PM-05 bump is not visible)."""
        from rch.worker.protocol import entry_from_json

        entries = {row[0]: entry_from_json(row) for row in self.world.worker(worker).root.index()[1]}
        for names in groups(entries):
            oldest = min(entries[p].mtime_ns for p in names)
            entries.update({p: entries[p]._replace(mtime_ns=oldest) for p in names})
        return entries

    @rule(script=scripts)
    def edit_here(self, script):
        for action in script:
            act(self.world.here, action)

    @rule(script=scripts)
    def build_here(self, script):
        for action in script:
            if action[1].startswith("target") and not action[2].startswith(("a", "d", "n", "C", "l")):
                act(self.world.here, action)

    @rule()
    def remove_target(self):
        target = self.world.here / "target"
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)

    def push(self, worker):
        pushed = self.world.push(worker)
        there = self.there(worker)
        manifest = pushed.manifest.entries
        tree = {p: e._replace(group=None) for p, e in there.items() if not is_build(p) or p in manifest}
        ours = {p: e._replace(group=None) for p, e in manifest.items()}
        assert tree == ours
        names = [sorted(g) for g in groups(manifest)]
        assert sorted(names) == sorted(sorted(g) for g in groups({p: there[p] for p in manifest}))
        for path in self.shared[worker]:
            if is_build(path) and not os.path.lexists(self.world.here / path):
                assert path not in there or there[path].type == "d"
        self.shared[worker] = {p for p in self.shared[worker] if p in there} | set(manifest)
        return pushed

    @rule(worker=workers, script=scripts, policy=policies)
    def command(self, worker, script, policy):
        self.push(worker)
        self.world.work(lambda tree: [act(tree, action) for action in script], worker)
        before = self.local()
        returned = self.world.fetch(worker, policy)
        self.check(worker, policy, before, returned)

    @rule(worker=workers, script=scripts, meanwhile=scripts, policy=policies)
    def command_with_edits_meanwhile(self, worker, script, meanwhile, policy):
        self.push(worker)
        self.world.work(lambda tree: [act(tree, action) for action in script], worker)
        for action in meanwhile:
            act(self.world.here, action)
        before = self.local()
        returned = self.world.fetch(worker, policy)
        self.check(worker, policy, before, returned)

    @rule(worker=workers, script=scripts)
    def client_lost_before_the_return(self, worker, script):
        self.push(worker)
        self.world.work(lambda tree: [act(tree, action) for action in script], worker)

    @rule(worker=workers, script=scripts, moment=st.integers(0, 14), policy=policies)
    def daemon_killed_while_placing(self, worker, script, moment, policy):
        self.push(worker)
        self.world.work(lambda tree: [act(tree, action) for action in script], worker)
        before = self.local()
        child = os.fork()
        if child == 0:
            seen = 0

            def hook(_name):
                nonlocal seen
                seen += 1
                if seen > moment:
                    os.kill(os.getpid(), signal.SIGKILL)

            with contextlib.suppress(BaseException):
                self.world.fetch(worker, policy, hook=hook)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        results = roll_forward(self.world.state)
        assert all(r.complete for r in results), results
        del before, status
        # what the record does not know yet is shared all the same where both sides have it
        there = self.there(worker)
        self.shared[worker] &= set(there)

    @invariant()
    def nothing_of_ours_is_left_behind(self):
        if not hasattr(self, "world"):
            return
        assert not [p for p in self.local() if ".rch-" in p]
        state = Path(self.world.state, "roots", "0123456789abcdef")
        if state.exists():
            assert not [p.name for p in state.iterdir() if p.name.startswith("staging-") or p.name == "journal"]

    def check(self, worker, policy, before, returned):
        after, there = self.local(), self.there(worker)
        manifest = self.world.pushed.manifest
        kept = {c.path for c in returned.conflicts}
        if returned.repair_locally:
            assert after == before
            return
        assert all(c.kind is ConflictKind.SOURCE for c in returned.conflicts)
        scope = {p for p in there if not is_build(p) or p in manifest.entries or policy is BuildDir.FULL}
        for path in scope:
            if is_under(path, kept):
                continue
            entry, here = there[path], after.get(path)
            sent = manifest.entries.get(path)
            was = before.get(path)
            if sent is not None and sent[:6] == entry[:6] and (here and here[:6]) == (was and was[:6]):
                continue  # the job left it alone; what was done to it here stands
            assert here is not None, path
            if entry.type == here.type == "d" and sent is not None and was is not None and was.mode != sent.mode:
                continue
            assert (here.type, here.content, here.mode) == (entry.type, entry.content, entry.mode), path
            if entry.type == "d":
                continue  # a directory that changed here meanwhile keeps its newer time
            allowed = {entry.mtime_ns}
            if returned.capped:
                allowed.add(min(entry.mtime_ns, manifest.taken_ns))
            assert here.mtime_ns in allowed, (path, here, entry)
        for path in manifest.entries:
            if path not in there and not is_under(path, kept) and path in after:
                # a directory with files of our own stays
                assert after[path].type == "d", path
        for path in self.shared[worker]:
            if is_build(path) and policy is BuildDir.FULL and path not in there and path in after:
                assert after[path].type == "d", path
        if policy is BuildDir.NONE:
            assert {p: e[:6] for p, e in after.items() if is_build(p) and p not in manifest.entries} == {
                p: e[:6] for p, e in before.items() if is_build(p) and p not in manifest.entries
            }
        else:
            self.shared[worker] |= scope
        self.shared[worker] = {p for p in self.shared[worker] if p in there} | {
            p for p in there if p in manifest.entries
        }


def is_build(path):
    return path == "target" or path.startswith("target/")


def is_under(path, kept):
    return path in kept or any(path.startswith(k + "/") for k in kept)


def groups(entries):
    found = {}
    for path, entry in entries.items():
        if entry.group is not None:
            found.setdefault(entry.group, []).append(path)
    return [g for g in found.values() if len(g) > 1]


def test_any_history_keeps_worker_and_workstation_equal(make_world, look):
    Transfers.make_world = staticmethod(make_world)
    Transfers.look = staticmethod(look)
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Transfers,
        settings=settings(
            max_examples=DEEP,
            stateful_step_count=12,
            deadline=None,
            report_multiple_bugs=False,
            # shrinking replays a history hundreds of times, each with real files: only on request
            phases=tuple(Phase) if os.environ.get("RCH_MODEL_SHRINK") else (Phase.generate,),
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
