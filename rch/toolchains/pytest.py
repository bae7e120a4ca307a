"""pytest, also as python -m pytest, uv run pytest and poetry run pytest; off by default. See pytest.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

RUN = Kind("pytest", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=("python",))

_OPTIONS = Options(
    flags="-x --exitfirst -v --verbose -q --quiet -s -l --showlocals --lf --last-failed --ff --failed-first --nf "
    "--new-first --sw --stepwise --sw-skip --stepwise-skip --no-header --no-summary --strict-markers --strict-config "
    "--strict --disable-warnings --disable-pytest-warnings --runxfail --cache-clear --doctest-modules --pyargs "
    "--full-trace --noconftest --keep-duplicates --continue-on-collection-errors --cov-branch --no-cov --cov-append "
    "--doctest-ignore-import-errors --doctest-continue-on-failure --benchmark-only --benchmark-skip --snapshot-update "
    "--randomly-dont-reorganize --xfail-tb --force-sugar --no-showlocals",
    valued="-k -m -p -c --config-file --rootdir --confcutdir --maxfail --tb --durations --durations-min --capture "
    "--show-capture --color --code-highlight -r -o --override-ini --junitxml --junit-xml --junit-prefix --basetemp "
    "--ignore --ignore-glob --deselect --import-mode -W --pythonwarnings --log-level --log-cli-level --log-file "
    "--log-format --log-file-level --log-date-format --doctest-glob --assert --verbosity --last-failed-no-failures "
    "--lfnf -n --numprocesses --dist --maxprocesses --max-worker-restart --cov-report --cov-config --cov-fail-under "
    "--timeout --timeout-method --reruns --reruns-delay --randomly-seed --asyncio-mode --count --pastebin",
    attached="--cov --sw-reset",
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "-V": "asks for the version",
        "--version": "asks for the version",
        "--co": "lists, runs nothing",
        "--collect-only": "lists, runs nothing",
        "--fixtures": "lists, runs nothing",
        "--funcargs": "lists, runs nothing",
        "--fixtures-per-test": "lists, runs nothing",
        "--markers": "lists, runs nothing",
        "--setup-plan": "lists, runs nothing",
        "--setup-only": "lists, runs nothing",
        "--cache-show": "only tells",
        "--trace-config": "only tells",
        "--pdb": "a debugger is interactive",
        "--trace": "a debugger is interactive",
        "--pdbcls": "a debugger is interactive",
        "-f": "waits for changes",
        "--looponfail": "waits for changes",
        "--debug": "writes a log here",
    },
    bundles=True,
)
_PYTHON = re.compile(r"(?:python|python3|python3\.\d+|pypy3?)\Z")
_LOCAL_BIN = re.compile(r"(?:\./|(?:\.\./)*)?(?:\.?venv|\.?env|\.tox/[\w.-]+|\.nox/[\w.-]+)/bin/([\w.]+)\Z")
_NAMES = frozenset({"pytest", "py.test"})
_RUNNERS = frozenset({"uv", "poetry", "pdm", "hatch", "pipenv", "rye"})


def claims(word: str) -> bool:
    found = _LOCAL_BIN.match(word)
    name = found[1] if found else word
    return _PYTHON.match(name) is not None or (found is not None and name in _NAMES)


def judge(call: Call) -> Judgement:
    at = _behind_pytest(call.program.rpartition("/")[2], call.words)
    if at is None:
        return no_build("only pytest behind it is sent out")
    reading = _OPTIONS.read(call.words[at:])
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    if reading.has("--pastebin"):
        return never("sends the output to a web page")
    outputs = reading.values("--junitxml", "--junit-xml", "--basetemp", "--log-file")
    return first_outside(call, outputs) or Build(RUN)


def _behind_pytest(program: str, words: Sequence[str]) -> int | None:
    """Index of the first word for pytest itself; None when this is no call of pytest."""
    if program in _NAMES:
        return 0
    if program in _RUNNERS:
        if len(words) > 1 and words[0] == "run":
            inner = _behind_pytest(words[1], words[2:])
            return None if inner is None else inner + 2
        return None
    if _PYTHON.match(program):
        return 2 if words[:2] in (("-m", "pytest"), ["-m", "pytest"]) else None
    return None


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    """One, unless pytest-xdist is asked for more."""
    at = _behind_pytest(argv[0].rpartition("/")[2], argv[1:])
    values = _OPTIONS.read(argv[1 + (at or 0) :]).values("-n", "--numprocesses")
    return positive_int(values) if values else 1


TOOLCHAIN = Toolchain(
    name="pytest",
    title="pytest",
    programs=frozenset({*_NAMES, *_RUNNERS}),
    claims=claims,
    keywords=("pytest", "py.test"),
    kinds=(RUN,),
    judge=judge,
    cores=cores,
    on_by_default=False,
    examples=(
        Example("pytest", "pytest"),
        Example("pytest -xvs tests/test_a.py::TestX -k 'not slow' --tb=short", "pytest"),
        Example("pytest -n 4 --cov=src --junitxml=out.xml", "pytest"),
        Example("python -m pytest -q", "pytest"),
        Example(".venv/bin/python -m pytest -q", "pytest"),
        Example(".venv/bin/pytest tests", "pytest"),
        Example("uv run pytest -q", "pytest"),
        Example("poetry run python -m pytest", "pytest"),
        Example("pytest --collect-only", reason="never-intercept"),
        Example("pytest --pdb", reason="never-intercept"),
        Example("pytest --version", reason="never-intercept"),
        Example("pytest --junitxml=/tmp/r.xml", reason="output-outside-roots"),
        Example("pytest --unheard-of", reason="not-a-build", why="a plug-in rch knows nothing about"),
        Example("python -m http.server", reason="not-a-build"),
        Example("python setup.py build", reason="not-a-build"),
        Example("uv sync", reason="not-a-build"),
    ),
)
