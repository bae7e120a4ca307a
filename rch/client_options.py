"""What the caller of ``rch exec`` wants: the command line, the RCH_* switches, and which of them decides.

Pure: nothing is opened, asked or started here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = """\
Usage: rch exec [OPTIONS] -- CMD [ARG...]

Run CMD on a worker as if it ran here; here, with one line that says why, when that cannot be.

  --worker W           this worker and no other; never here
  --tag T              only workers with this tag
  --on ADDR            this place and no other; never here (also --addr): a worker's name, local: or mock:
  --mode M             local, remote or mock
  --require-remote     end with 103 instead of running here
  --dry-run            show what would be done, run nothing
  --no-cache           join no running job, use a fresh build directory there
  -i, --interactive    give the job this terminal's input
  --output WHAT        all (default), errors, summary or progress
  --show-worker        put the worker's name before each line
  -v, --verbose        say where and what was moved       -q, --quiet   not even the reason line
  --json               describe the end as one JSON object on stderr
  -h, --help

Exit status: the command's own; 128+n death by signal n; 124 time limit; 102 products not delivered;
103 remote required, not possible now; 2 usage.
"""

OUTPUTS = ("all", "errors", "summary", "progress")
MODES = ("local", "remote", "mock")

# The variables that may name a place, the first one that is set counts (checklist A5).
ADDRESS_VARIABLES = ("RCH_ADDR", "FUGUE_ADDR", "GASTOWN_FUGUE_ADDR")

# Variables that rchd reads once, when it starts.
DAEMON_VARIABLES = (
    "RCH_COMMAND_TIMEOUT", "RCH_CONFIG", "RCH_CORS_ORIGIN", "RCH_INVENTORY", "RCH_LOG_LEVEL", "RCH_MAX_FILE_MB",
    "RCH_RATE_LIMIT", "RCH_REQUEST_TIMEOUT", "RCH_STATE_DIR", "RCH_WORKSPACE_DIR",
)  # fmt: skip

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")

_FLAGS = {
    "--require-remote": "require_remote",
    "--dry-run": "dry_run",
    "--no-cache": "no_cache",
    "-i": "interactive",
    "--interactive": "interactive",
    "--show-worker": "show_worker",
    "-v": "verbose",
    "--verbose": "verbose",
    "-q": "quiet",
    "--quiet": "quiet",
    "--json": "json",
    "-h": "help",
    "--help": "help",
}
_VALUES = {
    "--worker": "worker",
    "--tag": "tag",
    "--on": "on",
    "--addr": "on",
    "--mode": "mode",
    "--output": "output",
}


class UsageError(Exception):
    """The command line is off: one line that says what is and what could have been."""


class Options:
    """The options of one ``rch exec``; ``argv`` is the command."""

    __slots__ = (
        "argv", "dry_run", "help", "interactive", "json", "mode", "no_cache", "on", "output", "quiet",
        "require_remote", "show_worker", "tag", "verbose", "worker",
    )  # fmt: skip

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.dry_run = self.help = self.interactive = self.json = self.no_cache = False
        self.quiet = self.require_remote = self.show_worker = self.verbose = False
        self.mode = self.on = self.tag = self.worker = ""
        self.output = "all"


class Choice:
    """What the switches say.

    how:      "exec" the real tool at once; "local" as a child under local slots; "ask" rchd; "refuse".
    code:     the reason code of exec and local.
    line:     the reason, or for "refuse" the message.
    demand:   what forbids a local run ("--worker", "RCH_MODE=remote", …), or "".
    worker:   the one worker that was named, by whatever; mode: the executor, "" for the worker's own.
    notes:    lines about which of several names counts.
    dry_run:  "" | "only" (``--dry-run``: run nothing) | "first" (RCH_DRY_RUN: print, then run here).
    """

    __slots__ = ("code", "demand", "dry_run", "how", "line", "mode", "no_cache", "notes", "quiet", "verbose", "worker")

    def __init__(self, how: str, code: str = "", line: str = "") -> None:
        self.how = how
        self.code = code
        self.line = line
        self.demand = ""
        self.dry_run = ""
        self.mode = ""
        self.notes: list[str] = []
        self.worker = ""
        self.no_cache = self.quiet = self.verbose = False


def parse(words: Sequence[str]) -> Options:
    """Read the words behind ``rch exec``; raises UsageError."""
    options = Options()
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            rest.insert(0, word)
            break
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in _FLAGS:
            if equals:
                raise UsageError(f"{name} takes no value")
            setattr(options, _FLAGS[name], True)
        elif name in _VALUES:
            if not equals:
                if not rest or rest[0] == "--":
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            if not value:
                raise UsageError(f"{name} needs a value that is not empty")
            key = _VALUES[name]
            if key in given and given[key] != value:
                raise UsageError(f"{name} was given twice: {given[key]!r} and {value!r}")
            given[key] = value
        elif len(word) > 2 and word[1] != "-" and all("-" + letter in _FLAGS for letter in word[1:]):
            for letter in word[1:]:  # -vi
                setattr(options, _FLAGS["-" + letter], True)
        else:
            known = ", ".join(sorted({*_FLAGS, *_VALUES}, key=lambda w: w.lstrip("-")))
            raise UsageError(f"unknown option {word!r} (a command goes behind --); known: {known}")
    options.argv = rest
    _take_values(options, given)
    if options.help:
        return options
    if options.quiet and options.verbose:
        raise UsageError("-q and -v exclude each other")
    if options.worker and options.tag:
        raise UsageError("--worker and --tag exclude each other")
    if options.on and (options.worker or options.tag):
        raise UsageError(f"{'--worker' if options.worker else '--tag'} and --on exclude each other")
    if options.mode in ("local", "mock") and (options.worker or options.tag):
        raise UsageError(f"--mode {options.mode} and {'--worker' if options.worker else '--tag'} exclude each other")
    if not rest:
        raise UsageError("no command; write it behind --, as in: rch exec -- cargo build")
    if not rest[0]:
        raise UsageError("the command is an empty word")
    return options


def choose(options: Options, environ: Mapping[str, str]) -> Choice:
    """Which switch decides (coverage A-6 to A-10); the first of RCH_ON_WORKER, RCH_BYPASS, RCH_ENABLED=0, …."""
    if environ.get("RCH_ON_WORKER", "").lower() not in ("", *FALSE_WORDS):
        return Choice("exec", "on-worker", "RCH_ON_WORKER is set: this is a job already")
    bad: list[str] = []

    def switch(name: str) -> bool | None:
        value = environ.get(name, "")
        lowered = value.lower()
        if lowered in TRUE_WORDS or lowered in FALSE_WORDS:
            return lowered in TRUE_WORDS
        if value:
            bad.append(f"{name} must be one of {' '.join(TRUE_WORDS)} or {' '.join(FALSE_WORDS)}, got {value!r}")
        return None

    bypass, enabled, local_only = switch("RCH_BYPASS"), switch("RCH_ENABLED"), switch("RCH_LOCAL_ONLY")
    mode = environ.get("RCH_MODE", "")
    if mode and mode not in MODES:
        bad.append(f"RCH_MODE must be one of {' '.join(MODES)}, got {mode!r}")
    _check_number(environ, "RCH_COMPRESSION", 1, 19, bad, whole=True)
    _check_number(environ, "RCH_REQUEST_TIMEOUT", 0.001, 86400, bad)
    _check_number(environ, "RCH_COMMAND_TIMEOUT", 0.001, 31536000, bad)
    dry_run, no_cache = switch("RCH_DRY_RUN"), switch("RCH_NO_CACHE")
    env_quiet, env_verbose = switch("RCH_QUIET"), switch("RCH_VERBOSE")
    before = len(bad)
    require = switch("RCH_REQUIRE_REMOTE")

    quiet = options.quiet or (bool(env_quiet) and not options.verbose)
    verbose = not quiet and (options.verbose or bool(env_verbose))
    local_switch = (
        "RCH_BYPASS" if bypass else "RCH_ENABLED=0" if enabled is False else "RCH_LOCAL_ONLY" if local_only else ""
    )
    demand = (
        "--require-remote" if options.require_remote
        else "--worker" if options.worker
        else "--on" if options.on
        else "--mode remote" if options.mode == "remote"
        else "RCH_REQUIRE_REMOTE" if require or len(bad) > before  # a demand that cannot be read is still one
        else "RCH_MODE=remote" if mode == "remote" and not options.mode
        else ""
    )  # fmt: skip
    if local_switch and demand:
        choice = Choice("refuse", "contradiction", f"{local_switch} and {demand} exclude each other; drop one of them")
    elif bypass:
        choice = Choice("exec", "bypass", "RCH_BYPASS is set")
    elif bad and demand:
        choice = Choice("refuse", "bad-environment", bad[-1] if len(bad) > before else bad[0])
    elif bad:
        choice = Choice("local", "bad-environment", bad[0])
    elif enabled is False:
        choice = Choice("exec", "disabled", "RCH_ENABLED=0")
    elif local_only:
        choice = Choice("local", "local-only", "RCH_LOCAL_ONLY is set")
    else:
        choice = Choice("ask")
        if options.worker or options.on or any(environ.get(name) for name in ADDRESS_VARIABLES):
            from rch.client_address import choose_place

            # A place that was named never turns into a local run; a local switch beats RCH_ADDR (coverage A-8).
            demand = choose_place(choice, options, environ, verbose=verbose) or demand
    choice.demand = demand
    choice.mode = choice.mode or options.mode
    choice.dry_run = "only" if options.dry_run else "first" if dry_run else ""
    choice.no_cache = options.no_cache or bool(no_cache)
    choice.quiet, choice.verbose = quiet, verbose
    return choice


def _take_values(options: Options, given: Mapping[str, str]) -> None:
    options.worker, options.tag, options.on = given.get("worker", ""), given.get("tag", ""), given.get("on", "")
    options.mode = given.get("mode", "")
    if options.mode and options.mode not in MODES:
        raise UsageError(f"--mode must be one of {', '.join(MODES)}, got {options.mode!r}")
    options.output = given.get("output", "all")
    if options.output not in OUTPUTS:
        raise UsageError(f"--output must be one of {', '.join(OUTPUTS)}, got {options.output!r}")


def _check_number(
    source: Mapping[str, str], name: str, least: float, most: float, bad: list[str], *, whole: bool = False
) -> None:
    value = source.get(name, "")
    if not value:
        return
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:  # also false for nan
        kind = f"a whole number from {least} to {most}" if whole else f"a number of seconds from {least} to {most}"
        bad.append(f"{name} must be {kind}, got {value!r}")
