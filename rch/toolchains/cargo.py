"""cargo: build, check, test, clippy, doc, bench, nextest, rustc and run. See cargo.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options, Reading, positive_int, word_set
from rch.toolchains.rule import (
    Build,
    Call,
    Example,
    Judgement,
    Toolchain,
    first_outside,
    held_back,
    never,
    no_build,
)

_RUST = ("rust",)
BUILD = Kind("cargo.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95)
RUSTC = Kind("cargo.rustc", Products.FILES, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95)
CHECK = Kind("cargo.check", Products.OUTPUT, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95)
CLIPPY = Kind("cargo.clippy", Products.OUTPUT, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95)
DOC = Kind("cargo.doc", Products.FILES, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95)
TEST = Kind("cargo.test", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=_RUST, confidence=0.95)
BENCH = Kind("cargo.bench", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=_RUST, confidence=0.95)
NEXTEST = Kind("cargo.nextest", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=_RUST, confidence=0.95)
TEST_BINARY = Kind(
    "cargo.test-binary", Products.FILES, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95
)
BENCH_BINARY = Kind(
    "cargo.bench-binary", Products.FILES, repeatable=True, ignored_inputs=False, tools=_RUST, confidence=0.95
)
# Built there, then the same command here, where it finds everything fresh (execution.run_tests = "local").
TEST_HERE = Kind(
    "cargo.test-here",
    Products.FILES,
    repeatable=True,
    ignored_inputs=False,
    tools=_RUST,
    confidence=0.95,
    run_locally_after=True,
)
RUN = Kind(
    "cargo.run",
    Products.FILES,
    repeatable=True,
    ignored_inputs=False,
    tools=_RUST,
    confidence=0.80,
    run_locally_after=True,
)

_TELLS = {
    "-h": "asks for help",
    "--help": "asks for help",
    "-V": "asks for the version",
    "--version": "asks for the version",
    "--list": "lists, builds nothing",
    "--explain": "explains an error code",
    "--print": "prints what cargo knows",
    "--build-plan": "prints a plan, builds nothing",
    "--unit-graph": "prints a graph, builds nothing",
    "--dry-run": "a dry run",
}

_GLOBAL = Options(
    flags="-v -vv -vvv --verbose -q --quiet --locked --offline --frozen",
    valued="--color --config -Z -C --lockfile-path",
    stays=_TELLS,
    stop_at_operand=True,
)

_COMMON = Options(
    flags="-v -vv -vvv --verbose -q --quiet --locked --offline --frozen --workspace --all --lib --bins --examples "
    "--tests --benches --all-targets --all-features --no-default-features -r --release --keep-going "
    "--ignore-rust-version --future-incompat-report --no-fail-fast",
    valued="--color --config -Z -C -p --package --exclude --bin --example --test --bench -F --features --profile -j "
    "--jobs --target --target-dir --artifact-dir --out-dir --manifest-path --message-format --lockfile-path",
    attached="--timings",
    stays=_TELLS,
)

# Their own words after "--" go to rustc, clippy or the test programs and change nothing about where it runs.
_TABLES = {
    "build": _COMMON,
    "rustc": _COMMON.plus(valued="--crate-type"),
    "check": _COMMON,
    "clippy": _COMMON.plus(
        flags="--no-deps",
        stays={"--fix": "edits the sources"},
    ),
    "doc": _COMMON.plus(
        flags="--no-deps --document-private-items",
        stays={"--open": "opens a browser here"},
    ),
    "test": _COMMON.plus(flags="--doc --no-run"),
    "bench": _COMMON.plus(flags="--no-run"),
    "run": Options(
        flags=_COMMON.flags,
        valued=_COMMON.valued,
        attached=_COMMON.attached,
        stays=_TELLS,
        stop_at_operand=True,
    ),
    "nextest": _COMMON.plus(
        flags="--no-run --fail-fast --no-capture --nocapture --hide-progress-bar --ignore-default-filter "
        "--override-version-check --no-input-handler --no-output-indent --all-targets --cargo-quiet --cargo-verbose",
        valued="-P --profile --cargo-profile -E --filter-expr --filterset --retries --partition --test-threads "
        "--build-jobs --max-fail --run-ignored --status-level --final-status-level --failure-output --success-output "
        "--show-progress --no-tests --config-file --tool-config-file --archive-file --archive-format --extract-to "
        "--workspace-remap --target-dir-remap --cargo-metadata --binaries-metadata --message-format-version "
        "--user-config-file --flaky-result --max-progress-running",
        stays={"--debugger": "a debugger is interactive", "--tracer": "a tracer watches this machine"},
    ),
}
_SHORT = {"b": "build", "c": "check", "t": "test", "d": "doc", "r": "run"}
_KINDS = {
    "build": BUILD,
    "rustc": RUSTC,
    "check": CHECK,
    "clippy": CLIPPY,
    "doc": DOC,
    "test": TEST,
    "bench": BENCH,
    "nextest": NEXTEST,
}

NEVER = {
    **dict.fromkeys(("watch", "bacon"), "waits for changes"),
    **dict.fromkeys(("install", "uninstall", "binstall"), "changes ~/.cargo/bin here"),
    **dict.fromkeys(("publish", "login", "logout", "owner", "yank"), "speaks to the registry in your name"),
    **dict.fromkeys(
        ("update", "add", "remove", "rm", "upgrade", "generate-lockfile"), "edits Cargo.toml or Cargo.lock"
    ),
    **dict.fromkeys(("vendor", "fetch"), "fills a directory here"),
    **dict.fromkeys(("init", "new", "generate"), "creates a project here"),
    **dict.fromkeys(("fmt", "fix"), "edits the sources"),
    **dict.fromkeys(("clean", "cache", "sweep"), "cleans up here"),
    **dict.fromkeys(
        ("metadata", "tree", "search", "locate-project", "pkgid", "read-manifest", "verify-project", "info", "config"),
        "only tells",
    ),
    **dict.fromkeys(("help", "version", "report"), "only tells"),
    "package": "packs what is published from here",
}

_SERVES = word_set("--serve --server --listen --daemon --watch -s -d")
_ASKS = word_set("-h --help -V --version --list")


def judge(call: Call) -> Judgement:
    words = call.words
    if words and words[0].startswith("+"):
        words = words[1:]
    return _judge(call, words, frozenset())


def _judge(call: Call, words: Sequence[str], expanded: frozenset[str]) -> Judgement:
    leading = _GLOBAL.read(words)
    stay = held_back(leading, _GLOBAL)
    if stay is not None:
        return stay
    if not leading.operands:
        return no_build("cargo without a command")
    name, *rest = leading.operands
    if UNKNOWN in name:
        return no_build("which cargo command runs is not known before the shell runs it")
    name = _SHORT.get(name, name)
    if name not in _TABLES and name not in expanded:
        meant = call.aliases().get(name)
        if meant is not None:
            return _judge(call, (*meant, *rest), expanded | {name})
    if name in NEVER:
        return never(f"cargo {name} {NEVER[name]}")
    if name not in _TABLES:
        return no_build(f"cargo {name} is not a command rch sends out")
    if name == "nextest":
        if not rest or rest[0] not in ("run", "r"):
            return no_build("only 'cargo nextest run' builds")
        rest = rest[1:]
    # The end of leading options may have swallowed "--": cargo run -- x keeps it in the operands.
    return _judge_known(call, name, rest)


def _judge_known(call: Call, name: str, rest: Sequence[str]) -> Judgement:
    table = _TABLES[name]
    reading = table.read(rest)
    after = (*reading.operands, *(reading.rest or ())) if name == "run" else (reading.rest or ())
    stay = held_back(reading, table)
    if stay is not None:
        return stay
    if any(value.startswith("json") for value in reading.values("--message-format")):
        return never("its JSON messages are read by an editor or another program")
    asks = next((word for word in after if word in _ASKS), None)
    if asks is not None and name in ("run", "test", "bench", "nextest"):
        return never(f"{asks} only asks the program")
    if name == "run":
        serves = next((word for word in after if word.partition("=")[0] in _SERVES), None)
        if serves is not None:
            return never(f"{serves}: the program stays and serves")
        return first_outside(call, reading.values("--target-dir")) or Build(RUN, own_rule=True)
    if (
        name not in ("test", "bench", "nextest")
        and reading.operands
        and not any(UNKNOWN in w for w in reading.operands)
    ):
        return no_build(f"cargo {name} takes no operand {reading.operands[0]!r}")
    out = first_outside(call, reading.values("--target-dir", "--artifact-dir", "--out-dir"))
    if out is not None:
        return out
    kind = _KINDS[name]
    if name in ("test", "nextest"):
        if reading.has("--no-run"):
            kind = TEST_BINARY
        elif call.run_tests == "local" and name == "test":
            kind = TEST_HERE
    elif name == "bench" and reading.has("--no-run"):
        kind = BENCH_BINARY
    return Build(kind)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    words = list(argv[1:])
    while words and (words[0].startswith("+")):
        words.pop(0)
    if "nextest" in words[:4]:
        return positive_int(_COMMON.plus(valued="--build-jobs").read(words).values("--build-jobs"))
    return positive_int(_COMMON.read(words).values("-j", "--jobs"))


def options_of(argv: Sequence[str]) -> Reading | None:
    """What a sub-command's words say, aliases already expanded; None for a command rch does not send out."""
    leading = _GLOBAL.read(argv[1 + (len(argv) > 1 and argv[1].startswith("+")) :])
    if leading.unknown or not leading.operands:
        return None
    name, *rest = leading.operands
    name = _SHORT.get(name, name)
    if name not in _TABLES:
        return None
    reading = _TABLES[name].read(rest[1:] if name == "nextest" else rest)
    return Reading((*leading.options, *reading.options), reading.operands, reading.rest, reading.unknown)


def targets(argv: Sequence[str]) -> tuple[str, ...]:
    """The values of ``--target``; none where ``-Z build-std`` makes the standard library, or a file describes T."""
    reading = _COMMON.read([word for word in argv[1:] if not word.startswith("+")])
    if any(value.startswith("build-std") for value in reading.values("-Z")):
        return ()
    return tuple(value for value in reading.values("--target") if not value.endswith(".json"))


def build_argv(argv: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """The part of *argv* that runs on the worker when *kind* runs its program here: ``run`` becomes ``build``.

    cargo run --bin x -- a  ->  cargo build --bin x        cargo test -p y name  ->  cargo test -p y --no-run
    Aliases of cargo have to be expanded by the caller (:func:`expand`). Other kinds come back unchanged.
    """
    if kind not in (RUN, TEST_HERE):
        return tuple(argv)
    head = 1 + (len(argv) > 1 and argv[1].startswith("+"))
    leading = _GLOBAL.read(argv[head:])
    name_at = len(argv) - len(leading.operands) - (len(leading.rest) + 1 if leading.rest is not None else 0)
    rest = argv[name_at + 1 :]
    wanted = "run" if kind is RUN else "test"
    reading = _TABLES[wanted].read(rest)
    kept = list(rest)
    if reading.rest is not None:
        del kept[len(kept) - len(reading.rest) - 1 :]
    if kind is RUN:
        if reading.operands:
            del kept[len(kept) - len(reading.operands) :]
        return (*argv[:name_at], "build", *kept)
    return (*argv[: name_at + 1], *kept, "--no-run")


_CHECK_KEEPS = word_set(
    "--workspace --all --lib --bins --examples --tests --benches --all-targets --all-features --no-default-features "
    "--locked --offline --frozen -p --package --exclude --bin --example --test --bench -F --features --target "
    "--manifest-path --config"
)


def check_argv(argv: Sequence[str], kind: Kind) -> tuple[str, ...] | None:
    """The quick `cargo check` of what *argv* (aliases expanded) builds; None where there is none, or it is one."""
    reading = options_of(argv) if kind in TOOLCHAIN.kinds and kind is not CHECK else None
    if reading is None:
        return None
    kept = [
        word
        for name, value in reading.options
        if name in _CHECK_KEEPS
        for word in ((name,) if value is None else (name, value))
    ]
    return ("cargo", *(word for word in argv[1:2] if word.startswith("+")), "check", "--quiet", *kept)


def expand(argv: Sequence[str], aliases: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """*argv* with cargo's own aliases replaced, so that options can be read from it."""
    seen: set[str] = set()
    while True:
        head = 1 + (len(argv) > 1 and argv[1].startswith("+"))
        operands = _GLOBAL.read(argv[head:]).operands
        name = operands[0] if operands else ""
        if name not in aliases or name in _TABLES or name in _SHORT or name in seen:
            return tuple(argv)
        seen.add(name)
        at = len(argv) - len(operands)
        argv = (*argv[:at], *aliases[name], *argv[at + 1 :])


TOOLCHAIN = Toolchain(
    name="cargo",
    title="cargo (Rust)",
    programs=frozenset({"cargo"}),
    keywords=("cargo",),
    kinds=(BUILD, RUSTC, CHECK, CLIPPY, DOC, TEST, BENCH, NEXTEST, TEST_BINARY, BENCH_BINARY, TEST_HERE, RUN),
    judge=judge,
    cores=cores,
    examples=(
        Example("cargo build", "cargo.build"),
        Example("cargo b --release", "cargo.build", why="cargo's own short names"),
        Example("cargo +nightly build --workspace --all-targets", "cargo.build"),
        Example("cargo -q --offline build -p core -j4", "cargo.build"),
        Example("cargo check --all-features", "cargo.check"),
        Example("cargo c", "cargo.check"),
        Example("cargo clippy --all-targets -- -D warnings", "cargo.clippy"),
        Example("cargo test", "cargo.test"),
        Example("cargo test -p core name -- --nocapture --test-threads=1", "cargo.test"),
        Example("cargo test --no-run", "cargo.test-binary", why="its product is files"),
        Example("cargo bench", "cargo.bench"),
        Example("cargo bench --no-run", "cargo.bench-binary"),
        Example("cargo doc --no-deps", "cargo.doc"),
        Example("cargo nextest run -p core -E 'test(parse)'", "cargo.nextest"),
        Example("cargo rustc --release -- -C target-cpu=x86-64-v3", "cargo.rustc"),
        Example("cargo run --release -- input.txt", "cargo.run", why="built there, run here"),
        Example("cargo xt", "cargo.test", why="an alias of .cargo/config.toml", aliases={"xt": ("test", "-q")}),
        Example("cargo build --message-format short", "cargo.build"),
        Example("cargo build --message-format=json", reason="never-intercept", why="an editor reads it"),
        Example("cargo build --help", reason="never-intercept"),
        Example("cargo --version", reason="never-intercept"),
        Example("cargo --list", reason="never-intercept"),
        Example("cargo clippy --fix --allow-dirty", reason="never-intercept", why="edits the sources"),
        Example("cargo doc --open", reason="never-intercept"),
        Example("cargo run -- --serve", reason="never-intercept"),
        Example("cargo run --bin server -- --listen=0.0.0.0:80", reason="never-intercept"),
        Example("cargo run -- --help", reason="never-intercept"),
        Example("cargo test -- --list", reason="never-intercept"),
        Example("cargo watch -x test", reason="never-intercept"),
        Example("cargo install ripgrep", reason="never-intercept"),
        Example("cargo fmt --check", reason="never-intercept"),
        Example("cargo clean", reason="never-intercept"),
        Example("cargo update -p serde", reason="never-intercept"),
        Example("cargo add serde", reason="never-intercept"),
        Example("cargo publish --dry-run", reason="never-intercept"),
        Example("cargo build --target-dir /tmp/t", reason="output-outside-roots"),
        Example("cargo nextest list", reason="not-a-build"),
        Example("cargo llvm-cov", reason="not-a-build", why="a plug-in rch knows nothing about"),
        Example("cargo build --unheard-of", reason="not-a-build", why="cargo says what is wrong, here"),
        Example("cargo", reason="not-a-build"),
    ),
    notes="""\
`cargo run` is built on a worker and then run here, where cargo finds everything fresh; no slot is held while the
program runs. Words that make a program stay (`--serve --server --listen --daemon --watch -s -d`) keep all of it here.
`cargo test -- --list` and `cargo run -- --help` stay here: they only ask. `--target T` needs the standard library of T
on the worker.""",
)
