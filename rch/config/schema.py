"""Every key of the configuration, declared once: type, default, scope, effect, and where it is asked for.

Validation, docs/configuration.md, the examples and ``rch config show`` are made from these classes; nothing else knows
a key. One class is one TOML table, one field one key. A ``dict`` of classes is an open table (``[presets.NAME]``).

``scope``   U: user and system file, P: project file, P*: project file once it is trusted (``rch config trust``)
``merge``   how a higher layer meets a lower one: replace (the rule), all (every layer must say true), any (one layer
            that says true is enough), add (lists add up), narrow (every list that is set must hold)
``trust``   a project's value that is inert until trusted although the key as such is not: full (the value "full"),
            raise (more than the user's), on (true where it was false), off (false where it was true), auto
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.fields import FieldInfo

from rch.client_paths import SOCKET_PATH_MAX

YEAR_S = 31_536_000


def key(
    default: Any,
    effect: str,
    origin: str,
    scope: str,
    *,
    merge: str = "replace",
    trust: str = "",
    expects: str = "",
    example: Any = None,
    shown_default: str = "",
    alias: str | None = None,
) -> Any:
    """Declare one key; ``origin`` is the paragraph that asks for it, ``expects`` completes "KEY must be …"."""
    facts: dict[str, Any] = {
        "scope": scope,
        "merge": merge,
        "trust": trust,
        "expects": expects,
        "example": example,
        "origin": origin,
        "shown_default": shown_default,
    }
    made: FieldInfo = Field(default, description=effect, alias=alias, json_schema_extra=facts)
    return made


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("not an absolute path")
    return value


def _absolute_or_home(value: str) -> str:
    return value if value.startswith("~/") and "\0" not in value else _absolute(value)


def _socket_path(value: str) -> str:
    if len(value.encode("utf-8", "surrogateescape")) > SOCKET_PATH_MAX:
        raise ValueError("longer than a socket address can hold")
    return _absolute(value)


def _word(value: str) -> str:
    if not value or any(character.isspace() or not character.isprintable() for character in value):
        raise ValueError("empty, or holds spaces")
    return value


def _line(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("empty, or holds control characters")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("RCH_") or "\0" in text:
            raise ValueError(f"{name!r} is no variable that a job can be given")
    return value


AbsolutePath = Annotated[str, AfterValidator(_absolute_or_home)]
SocketPath = Annotated[str, AfterValidator(_socket_path)]
Word = Annotated[str, AfterValidator(_word)]
Line = Annotated[str, AfterValidator(_line)]
Text = Annotated[str, AfterValidator(_no_nul)]
Words = Annotated[tuple[Word, ...], Strict(False)]
OneOrMore = Annotated[Words, BeforeValidator(_as_list)]
Patterns = Annotated[tuple[Line, ...], Strict(False)]
Arguments = Annotated[tuple[Text, ...], Strict(False)]
Variables = Annotated[dict[str, str], AfterValidator(_variables)]
Seconds = Annotated[int, Field(ge=1, le=YEAR_S)]
SecondsOrZero = Annotated[int, Field(ge=0, le=YEAR_S)]
Hours = Annotated[int, Field(ge=0, le=87_600)]
Megabytes = Annotated[int, Field(ge=1, le=10_000_000)]
Level = Literal["auto"] | Annotated[int, Field(ge=1, le=19)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Cores = Annotated[int, Field(ge=1, le=4096)]
CommandLine = Arguments | Text

VARIABLE_NAMES = 'a table of environment variables: NAME = "text", no RCH_ names'


class Table(BaseModel):
    """A TOML table: closed, strict, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


class General(Table):
    """rch as a whole."""

    enabled: bool = key(True, "false: as `RCH_ENABLED=0`, nothing is intercepted", "11.2", "U", merge="all")
    local_only: bool = key(False, "true: as `RCH_LOCAL_ONLY=1`, every build runs here", "11.2", "U", merge="any")
    verbose: bool = key(False, "as `-v`", "11.2", "U")
    log_level: Literal["debug", "info", "warning", "error"] = key("info", "level of rchd's log", "11.2", "U")
    log_file: AbsolutePath | None = key(
        None,
        "rchd's log: JSON lines, 0600, rotated by size",
        "11.2, C-19",
        "U",
        expects='an absolute path, or one that begins with "~/"',
        shown_default="<state>/log/rch.log",
        example="~/.local/state/rch/log/rch.log",
    )


class Daemon(Table):
    """rchd."""

    socket_path: SocketPath | None = key(
        None,
        "rchd's socket; its directory is made 0700, the socket 0600",
        "11.2",
        "U",
        expects=f"an absolute path of at most {SOCKET_PATH_MAX} bytes",
        shown_default="rchd.sock in the run directory",
        example="/run/user/1000/rch/rchd.sock",
    )
    heartbeat_interval_sec: Seconds = key(30, "seconds between two health probes of a worker", "11.2, C-9", "U")
    benchmark_interval_hours: Hours = key(
        6, "hours after which an idle worker is measured again; 0: only on request", "11.2, D-8", "U"
    )
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = key(
        5, "faults in a row that take a worker out of the choice", "C-10", "U"
    )
    breaker_cooldown_sec: Seconds = key(60, "seconds until such a worker is probed again", "C-10", "U")


class TransferExclude(Table):
    """Names that do not travel."""

    patterns: Patterns = key(
        ("target/", "node_modules/", "*.rlib", "*.rmeta", "*.o", "*.a", "*.so", "*.dylib"),
        "untracked names that do not travel; tracked files always do. The object patterns (`*.o` to `*.dylib`) do not "
        "apply to make, cmake, ninja, meson and cc, whose ignored files are inputs",
        "11.2, A-16",
        "U",
    )


class Transfer(Table):
    """What goes over."""

    compression_level: Level = key(
        "auto", "zstd level of the push; `auto` starts at 3 and follows the measured link", "11.2, A-18", "U"
    )
    max_transfer_size_mb: Megabytes = key(
        500, "a push whose files to send are larger runs here, `too-large`", "11.2, A-17", "U"
    )
    max_size_mb: Megabytes | None = key(
        None,
        "the project's form of `transfer.max_transfer_size_mb`; above the user's value only once trusted",
        "11.4, A-3",
        "P",
        trust="raise",
        shown_default="transfer.max_transfer_size_mb",
        example=200,
    )
    timeout_sec: Seconds = key(300, "seconds without progress, either direction, that end a transfer", "11.2", "U")
    exclude: TransferExclude = TransferExclude()
    exclude_extra: Patterns = key(
        (), "added to `transfer.exclude.patterns`", "11.4", "P", merge="add", example=["testdata/", "*.pdb"]
    )
    force_include: Patterns = key(
        (), "travels whatever the exclusions and git say", "11.4, A-16", "U, P*", example=[".cargo/config.toml"]
    )
    git: Literal["none", "head", "full"] = key(
        "head",
        "what of `.git` a job sees: `head` answers `git rev-parse HEAD`, `git describe` and `git log -1` as here and "
        "sends no content; `full` sends the repository",
        "issue 2, 7; A-3",
        "U, P",
        trust="full",
    )
    secret_scan: bool = key(
        False,
        "true: nothing leaves unscanned; until the scan is built every push is refused with exit 3",
        "E-6",
        "U, P",
        trust="off",
    )


class Execution(Table):
    """The run itself."""

    streaming_output: bool = key(
        True, "false: output is shown when the job has ended, same bytes and order", "11.2", "U"
    )
    fallback_to_local: bool = key(
        True, "false: the configured form of `--require-remote`, 103 instead of a run here", "11.2", "U"
    )
    timeout_sec: Seconds = key(
        3600,
        "limit of the run itself (queue, push, fetch step and return do not count): TERM, 5 s, KILL, exit 124",
        "11.2, 11.4",
        "U, P",
    )
    resource_limits: bool = key(
        True, "memory and process ceilings per job where cgroups allow, never tighter than the machine", "11.2", "U"
    )
    cores: Cores | None = key(
        None,
        "slots asked for instead of the estimate, capped at the worker's; a smaller `-j` of the command wins",
        "11.4",
        "P",
        shown_default="the estimate",
        example=8,
    )
    preflight_check: bool = key(False, "`cargo check` here first, at most 5 s", "11.4, B-9", "P")
    enable_queueing: bool = key(True, "false: no waiting for a slot, the next tier at once", "C-7", "U")
    queue_wait_sec: SecondsOrZero = key(60, "seconds to wait for a slot; then here, or 103", "C-7", "U")
    run_tests: Literal["remote", "local"] = key(
        "remote", "`local`: tests are built there and run here, as `cargo run` is", "issue 3, 3", "U, P"
    )
    network: Literal["auto", "none"] = key(
        "auto",
        "`auto`: the worker's network where the caller has one; `none`: a private loopback",
        "design 5",
        "U, P",
        trust="auto",
    )
    env: Variables = key(
        {},
        "variables of the job beside the kind's rule, here and there; merged by name, the project's value wins",
        "11.4, A-21",
        "U, P*",
        expects=VARIABLE_NAMES,
        example={"RUSTFLAGS": "-C target-cpu=x86-64-v3"},
    )


class Artifacts(Table):
    """What comes back."""

    compression_level: Level = key("auto", "zstd level of the return; `auto` starts at 1", "11.2, A-18", "U")
    build_dir: Literal["auto", "full", "outputs", "none"] = key(
        "auto",
        "how much of the build directory returns; `auto`: all of it for kinds whose product is files, nothing for "
        "kinds whose product is output (test, check, clippy)",
        "design 6.4",
        "U, P",
    )
    extra_patterns: Patterns = key(
        (),
        "files of the build directory that return whatever `artifacts.build_dir` says",
        "11.4, A-22",
        "P",
        example=["target/criterion/**"],
    )
    cleanup_remote: bool = key(
        False, "true: after a verified return nothing of the project stays on the worker", "11.2", "U"
    )
    cache_ttl_hours: Hours = key(
        24, "a tree on a worker unused for longer goes at the next collection", "11.4, C-16", "U, P"
    )


class Workers(Table):
    """Which workers may be chosen. Names of workers or groups."""

    allowed: Words = key(
        (),
        "empty: all; a project's list narrows the user's",
        "11.4, A-2",
        "U, P",
        merge="narrow",
        example=["css", "heavy"],
    )
    preferred: OneOrMore = key(
        (),
        "taken first when it meets every requirement and has the slots; else another, reason `fallback`",
        "11.4",
        "U, P",
        expects="a worker's name or a list of names",
        example="css",
    )
    blocked: Words = key((), "never chosen by the scheduler", "11.4, A-2", "U, P", merge="add", example=["yto"])
    min_speed_score: Score = key(0.0, "hard requirement; an unknown score fails it only above 0", "11.4", "U, P")
    discovery_enabled: bool = key(
        True, "`rch init` and `rch doctor` propose hosts; nothing is contacted or added unasked", "11.2, D-6", "U"
    )


class Hooks(Table):
    """Commands run here, as children of the client, in the root, by `sh -c`, at most 60 s each."""

    pre_transfer: Text = key(
        "", "before the push; failing means the command runs here, `hook-failed`", "11.2, A-20", "U, P*"
    )
    post_compile: Text = key("", "after placement, with RCH_EXIT_STATUS set", "11.2, A-20", "U, P*")
    on_fallback: Text = key("", "before a run here that could have gone out", "11.2, A-20", "U")


class Metrics(Table):
    """Figures and history."""

    enabled: bool = key(True, "false: nothing is counted, `/metrics` answers 404", "11.2", "U")
    prometheus_port: Annotated[int, Field(ge=0, le=65535)] = key(
        0, "serves GET /metrics on 127.0.0.1, with a token; 0: off", "11.2, C-18", "U"
    )
    history_retention_days: Annotated[int, Field(ge=0, le=36500)] = key(
        30, "days that history and events are kept", "11.2, C-16", "U"
    )


class CostBenefit(Table):
    """Whether a build is worth sending."""

    min_compile_time_ms: Annotated[int, Field(ge=0, le=86_400_000)] = key(
        2000, "a local estimate below it: here, `too-quick`", "6.7", "U"
    )
    benefit_threshold: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = key(
        0.80, "remote only if its total is below this share of local", "6.7", "U"
    )
    always_remote: Patterns = key(
        (),
        "leading words of commands for which the cost question is skipped, never a requirement",
        "6.7",
        "U",
        example=["cargo build --release", "cargo test --release"],
    )
    never_remote: Patterns = key((), "leading words of commands that stay here", "6.7", "U", example=["cargo check"])


class ProjectTable(Table):
    """The project itself."""

    id: Word | None = key(
        None,
        "key of history and cost figures, label in metrics; two checkouts with one id never share a tree",
        "11.4",
        "P",
        shown_default="from the root",
        example="app",
    )
    name: Line | None = key(
        None,
        "shown in logs, status and dashboard",
        "11.4",
        "P",
        shown_default="base name of the root",
        example="The App",
    )
    enabled: bool = key(True, "false: nothing of this project is intercepted", "11.4, A-2", "P", merge="all")
    local_only: bool = key(False, "true: every build of this project runs here", "11.4, A-2", "P", merge="any")


class Toolchains(Table):
    """Toolchains whose commands are recognised."""

    cargo: bool = key(True, "cargo build, check, test, clippy, doc, bench, nextest", "issue 3, 3", "U, P", trust="on")
    rustc: bool = key(True, "rustc", "issue 3, 3", "U, P", trust="on")
    cc: bool = key(True, "gcc, g++, clang, clang++, cc, c++", "issue 3, 3", "U, P", trust="on")
    make: bool = key(True, "make, gmake", "issue 3, 3", "U, P", trust="on")
    cmake: bool = key(True, "cmake --build", "issue 3, 3", "U, P", trust="on")
    ninja: bool = key(True, "ninja", "issue 3, 3", "U, P", trust="on")
    meson: bool = key(True, "meson compile", "issue 3, 3", "U, P", trust="on")
    go: bool = key(True, "go build, test, vet", "issue 3, 3", "U, P", trust="on")
    bun: bool = key(True, "bun test, typecheck", "issue 3, 3", "U, P", trust="on")
    tsc: bool = key(True, "tsc --noEmit", "issue 3, 3", "U, P", trust="on")
    zig: bool = key(True, "zig build", "issue 3, 3", "U, P", trust="on")
    ctest: bool = key(False, "ctest", "issue 3, 3", "U, P", trust="on")
    pytest: bool = key(False, "pytest", "issue 3, 3", "U, P", trust="on")
    npm: bool = key(False, "npm, pnpm and yarn: test, run build", "issue 3, 3", "U, P", trust="on")
    gradle: bool = key(False, "gradle build, test", "issue 3, 3", "U, P", trust="on")
    maven: bool = key(False, "mvn build, test", "issue 3, 3", "U, P", trust="on")


class Interception(Table):
    """Which commands are builds."""

    structure: Literal["transparent", "strict"] = key(
        "transparent", "`strict`: pipes, redirections, `&` and `$( )` are never intercepted", "issue 3, 2", "U, P"
    )
    confidence_threshold: Share = key(0.85, "a decision below it stays here, `below-threshold`", "B-3", "U, P")
    exclude: Patterns = key(
        (),
        "leading words of commands that are never intercepted",
        "issue 3, 2; B-10",
        "U, P",
        merge="add",
        example=["make flash"],
    )
    http_hook_port: Annotated[int, Field(ge=0, le=65535)] = key(
        0,
        "rchd answers Claude's `type: http` hook on 127.0.0.1 at this port, with the token in `<state>/token`; 0: off",
        "issue 3, 5; M29",
        "U",
        example=8431,
    )
    toolchains: Toolchains = Toolchains()


class Weights(Table):
    """Weights of the balanced strategy."""

    speed: Share = key(0.35, "speed score / 100", "C-3", "U")
    slots: Share = key(0.25, "free slots / all slots", "C-3", "U")
    affinity: Share = key(0.25, "how much of the project the worker holds", "C-3", "U")
    cost: Share = key(0.15, "what the run saves against a run here", "C-3", "U")


class Slurm(Table):
    """What an allocation asks for."""

    partition: Word | None = key(None, "partition", "H-2", "U", example="build", shown_default="Slurm's")
    account: Word | None = key(None, "account", "H-2", "U", example="dev", shown_default="Slurm's")
    qos: Word | None = key(None, "quality of service", "H-2", "U", example="normal", shown_default="Slurm's")
    constraint: Line | None = key(None, "features a node must have", "H-2", "U", example="avx2", shown_default="none")
    allocation_idle_sec: SecondsOrZero | None = key(
        None, "seconds an idle allocation is kept", "H-2", "U", example=300, shown_default="none"
    )
    warm_wait_sec: SecondsOrZero | None = key(
        None, "seconds to wait for a preferred node", "H-2", "U", example=10, shown_default="none"
    )


Backend = Literal["builtin", "slurm"]


class Selection(Table):
    """How a worker is chosen."""

    strategy: Literal["balanced", "priority", "fastest", "affinity"] = key(
        "balanced", "`priority`: a higher `rch_priority` first", "C-2, C-3", "U"
    )
    weights: Weights = Weights()
    backend: Backend = key("builtin", "who chooses: rch itself, or Slurm", "H-1", "U")
    backend_by_tag: dict[str, Backend] = key(
        {},
        "the same per tag of a job",
        "H-1",
        "U",
        expects='a table: TAG = "builtin" or "slurm"',
        example={"heavy": "slurm"},
    )
    slurm: Slurm = Slurm()
    slurm_by_tag: dict[str, Slurm] = {}


class Stage(Table):
    """`[stages.NAME]`: one check of `rch ci`."""

    command: CommandLine | None = key(
        None, "argv, or a string for `sh -c`", "E-1", "P", example=["cargo", "test"], shown_default="none"
    )
    cmd: CommandLine | None = key(None, "the same under its other name", "E-1", "P", shown_default="none")
    fix_command: CommandLine | None = key(
        None, "what `--fix` runs instead", "E-1", "P", example=["cargo", "fmt"], shown_default="none"
    )
    fix_cmd: CommandLine | None = key(None, "the same under its other name", "E-1", "P", shown_default="none")
    timeout: SecondsOrZero = key(1200, "seconds; 0 means 1200", "E-1", "P")
    enabled: bool = key(True, "false: only by name or with `--all`", "E-1", "P")
    depends_on: Words = key((), "stages that must have passed", "E-1", "P", example=["build"])
    watch: Patterns = key(
        (), "globs that the cache key covers; none: `cache.include_patterns`", "E-1", "P", example=["src/**"]
    )
    check: bool | Text | Arguments | None = key(
        None, "accepted, without effect", "E-1", "P", shown_default="none", expects="true, false, a string or a list"
    )


class CacheTable(Table):
    """What the stage cache looks at."""

    skip_dirs: Patterns = key((), "directories outside the key", "E-1", "P", example=["docs"])
    include_patterns: Patterns = key((), "files inside the key", "E-1", "P", example=["**/*.rs"])


class Dependencies(Table):
    """Programs that stages need."""

    required: Words = key((), "missing: exit 2 before any stage", "E-1", "P", example=["cargo"])
    optional: Words = key((), "missing: one line after the summary", "E-1", "P", example=["cargo-nextest"])


class Workspace(Table):
    """The members of the workspace."""

    exclude: Patterns = key((), "members outside the cache key", "E-1", "P", example=["fuzz"])


class Profile(Table):
    """`[profiles.NAME]`: a named way to call `rch ci`."""

    stages: Words = key((), "stages in this order", "E-1", "P", example=["test"])
    fail_fast: bool = key(False, "as `--fail-fast`", "E-1", "P")
    no_cache: bool = key(False, "as `--no-cache`", "E-1", "P")
    as_json: bool = key(False, "as `--json`", "E-1", "P", alias="json")


class Retention(Table):
    """How long things are kept on workers."""

    failed_hours: Hours = key(24, "hours that the job directory of a failed or undelivered job stays", "S26", "U")
    keep_projects: Count = key(5, "the last projects of a worker, collected after all others", "C-16", "U")


class Preset(Table):
    """`[presets.NAME]`: a named place."""

    addr: Word | None = key(
        None, "address of a worker or an rchd", "A7", "U, P*", example="ssh://rch@203.0.113.20", shown_default="none"
    )
    hosts: Words = key((), "hosts or groups of the inventory", "A7", "U, P*", example=["css"])
    tags: Words = key((), "tags that a worker must have", "A7", "U, P*", example=["heavy-compute"])
    env: Variables = key(
        {}, "variables of jobs placed here", "A7", "U, P*", expects=VARIABLE_NAMES, example={"CI": "1"}
    )
    size: Word | None = key(
        None, "size of machine: s, m, l, xl or the provider's name", "A7", "U, P*", example="m", shown_default="none"
    )


class Template(Table):
    """`[dispatch.templates.NAME]`: how an agent is run away from here."""

    argv: Arguments = key(
        (), "words; `{prompt}` and `{max_turns}` are filled in", "D2", "U, P*", example=["agent", "-p", "{prompt}"]
    )
    env: Variables = key({}, "variables of the job", "D2", "U, P*", expects=VARIABLE_NAMES, example={"LANG": "C.UTF-8"})
    setup: CommandLine | None = key(None, "run first", "D2", "U, P*", example="./setup.sh", shown_default="none")
    size: Word | None = key(None, "size of machine", "D2", "U, P*", example="m", shown_default="none")
    timeout: Annotated[int, Field(ge=1, le=1440)] = key(120, "minutes", "D2, D3", "U, P*")


class Dispatch(Table):
    """`rch dispatch`."""

    max_context_mb: Megabytes = key(500, "a larger snapshot is refused", "D9", "U, P*")
    include: Patterns = key(
        (), "ignored paths that are sent too, through the gate", "F-1", "U, P*", example=[".claude/"]
    )
    scale_queue: Count = key(0, "waiting jobs above which machines may be started; 0: off", "F-2", "U, P*")
    scale_max: Count = key(0, "machines started at most", "F-2", "U, P*")
    templates: dict[str, Template] = {}


class Gate(Table):
    """The secret gate."""

    scanners: Words = key((), "scanners beside the built-in rules", "D14", "U, P*", example=["gitleaks"])
    baseline: Line | None = key(
        None, "file of hashes of accepted findings", "D15", "U, P*", example=".rch/gate-baseline", shown_default="none"
    )
    allow_paths: Patterns = key((), "globs that are not scanned", "D15", "U, P*", example=["tests/fixtures/**"])
    allow_skip: bool = key(False, "true: `--skip-secret-scan` works", "D16", "U")


class Settings(Table):
    """All tables."""

    general: General = General()
    daemon: Daemon = Daemon()
    transfer: Transfer = Transfer()
    execution: Execution = Execution()
    artifacts: Artifacts = Artifacts()
    workers: Workers = Workers()
    hooks: Hooks = Hooks()
    metrics: Metrics = Metrics()
    cost_benefit: CostBenefit = CostBenefit()
    project: ProjectTable = ProjectTable()
    interception: Interception = Interception()
    selection: Selection = Selection()
    retention: Retention = Retention()
    stages: dict[str, Stage] = {}
    cache: CacheTable = CacheTable()
    dependencies: Dependencies = Dependencies()
    workspace: Workspace = Workspace()
    profiles: dict[str, Profile] = {}
    presets: dict[str, Preset] = {}
    dispatch: Dispatch = Dispatch()
    gate: Gate = Gate()


RETIRED = {
    "daemon.pid_file": "rchd is single by a lock on the state directory; `rch daemon status` prints its pid",
    "transfer.parallel_transfers": "a push is one rsync stream: several gained nothing (docs/adr/0009); delete the key",
    "artifacts.incremental_sync": "what returns is always the difference; delete the key",
    "workers.config_file": "workers are hosts of the Ansible inventory; `rch workers import FILE` reads the old file",
}
"""Keys that once were, and what to use instead."""
