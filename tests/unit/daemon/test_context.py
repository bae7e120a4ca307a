"""What the decision hands on to the job (coverage B-10), and the switches as rchd itself reads them."""

import pytest
from station import Station

from rch.daemon.wire import Frame
from rch.execute.mock import FaultPlan
from rch.worker.identity import c_identity


@pytest.fixture
def here(tmp_path):
    c = c_identity("/usr/bin:/bin")
    row = {"identity": c["identity"], "shown": c["shown"], "binds": {}}
    facts = {"os": {"id": "mock", "version_id": "1"}, "machine": "x", "toolchains": {"c": [row]}, "packages": "a1"}
    made = Station(tmp_path, FaultPlan(), facts=facts, programs={"make": "true"})
    (made.project / ".rch").mkdir()
    (made.project / "sub").mkdir()
    (made.project / "sub" / "Makefile").write_text("all:\n")
    yield made
    made.close()


class TestTheContext:
    def test_b_10_of_a_command_reaches_its_job(self, here):
        status, _ = here.order(["make", "-C", "sub", "-j1"], env={"CFLAGS": "-O3", "EDITOR": "vi", "RCH_TAG": ""})
        assert status == 0
        spec = here.asked("prepare")[-1]["spec"]
        assert spec["argv"] == ["make", "-C", "sub", "-j1"]
        assert spec["cwd"] == str(here.project)
        assert [root["path"] for root in spec["roots"]] == [str(here.project)]
        assert spec["env"]["CFLAGS"] == "-O3"
        assert not {"RCH_TAG", "RCH_STATE_DIR"} & set(spec["env"])
        assert spec["kind"] == "make"
        assert here.job().slots == 1

    @pytest.mark.parametrize(
        ("words", "config", "slots"),
        [
            (["make", "-j1"], "", 1),
            (["make", "-j1"], "[execution]\ncores = 2\n", 1),
            (["make"], "[execution]\ncores = 1\n", 1),
            (["make"], "", 1),  # as make itself
            (["make", "-j"], "", 2),  # all that the worker has
        ],
    )
    def test_b_10_slots_are_the_words_then_the_projects_then_an_estimate(self, here, words, config, slots):
        (here.project / ".rch" / "config.toml").write_text(config)
        assert here.order(words)[0] == 0
        assert here.job().slots == slots

    def test_b_10_a_projects_exclusion_decides_before_anything_is_asked_of_a_worker(self, here):
        (here.project / ".rch" / "config.toml").write_text("[interception]\nexclude = ['make docs']\n")
        status, caller = here.order(["make", "docs"])
        _, fields = caller.last(Frame.LOCAL)
        assert (status, fields["code"], fields["quiet"]) == (None, "excluded", True)
        assert here.executor.calls == []
        assert here.order(["make"])[0] == 0


class TestAReasonThatIsTold:
    """What the hook rewrites although it stays here: a line, local slots, and nothing of a worker."""

    @pytest.mark.parametrize(
        ("config", "env", "code"),
        [
            ("", {"RCH_LOCAL_ONLY": "1"}, "local-only"),
            ("", {"RCH_LOCAL_ONLY": "perhaps"}, "bad-environment"),
            ("[interception]\nconfidence_threshold = 0.99\n", {}, "below-threshold"),
            ("structure = [", {}, "bad-config"),
        ],
    )
    def test_a_5_is_not_silent(self, here, config, env, code):
        (here.project / ".rch" / "config.toml").write_text(config)
        status, caller = here.order(["make", "-j2"], env=env)
        _, fields = caller.last(Frame.LOCAL)
        assert (status, fields["code"], fields["quiet"]) == (None, code, False)
        assert fields["slots"] != 0
        assert fields["reason"]
        assert here.executor.calls == []
