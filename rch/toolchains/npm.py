"""npm, pnpm and yarn: test and run build; off by default. See npm.md."""

from __future__ import annotations

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, held_back, never, no_build
from rch.toolchains.tsc import judge_tsc

TEST = Kind("npm.test", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=("node",))
BUILD = Kind("npm.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=("node",))

_OPTIONS = Options(
    flags="-s --silent --if-present -r --recursive --workspaces -ws --include-workspace-root --parallel --stream "
    "--no-color --color -q --quiet --no-bail --sequential -w",
    valued="--prefix -C --dir --cwd --filter -F --workspace --loglevel --workspace-concurrency --reporter",
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "-v": "asks for the version",
        "--version": "asks for the version",
        "-g": "changes this machine's packages",
        "--global": "changes this machine's packages",
    },
    stop_at_operand=True,
)
_WAITS = frozenset({"--watch", "--watchAll", "-w", "--ui", "--open", "--inspect", "--inspect-brk"})
_NEVER = frozenset(
    {
        *(
            "publish",
            "login",
            "logout",
            "adduser",
            "install",
            "i",
            "ci",
            "add",
            "remove",
            "uninstall",
            "update",
            "link",
        ),
        *("init", "create", "start", "version", "audit", "outdated", "ls", "list", "view", "config", "cache", "dedupe"),
    }
)


def judge(call: Call) -> Judgement:
    reading = _OPTIONS.read(call.words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    operands = reading.operands
    if not operands:
        return no_build("no script named")
    name = operands[0]
    if name in _NEVER:
        return never(f"{call.program} {name}")
    if name == "exec" or (call.program != "npm" and name in ("tsc", "vue-tsc")):
        behind = [word for word in operands[name == "exec" :] if word != "--"]
        if behind and behind[0] in ("tsc", "vue-tsc"):
            return judge_tsc(tuple(behind[1:]))
        return no_build("only tsc behind it is sent out")
    ran = name in ("run", "run-script")
    script = next((word for word in operands[1:] if not word.startswith("-")), "") if ran else name
    rest = operands[1:]
    waits = next((word for word in rest if word.partition("=")[0] in _WAITS and not word.endswith("=false")), "")
    if waits:
        return never(f"{waits} waits or serves")
    if any(word in ("--help", "--version") for word in rest):
        return never("only asks the script")
    if script == "test" or (not ran and call.program == "npm" and script in ("t", "tst")):
        return Build(TEST)
    if script == "build" and (ran or call.program != "npm"):
        return Build(BUILD)
    return no_build(f"only the scripts test and build are sent out, not {script!r}")


TOOLCHAIN = Toolchain(
    name="npm",
    title="npm, pnpm, yarn",
    programs=frozenset({"npm", "pnpm", "yarn"}),
    keywords=("npm", "yarn"),
    kinds=(TEST, BUILD),
    judge=judge,
    on_by_default=False,
    examples=(
        Example("npm test", "npm.test"),
        Example("npm t", "npm.test"),
        Example("npm run test -- --coverage", "npm.test"),
        Example("npm --prefix web run build", "npm.build"),
        Example("npm run build", "npm.build"),
        Example("pnpm build", "npm.build"),
        Example("pnpm -r test", "npm.test"),
        Example("pnpm --filter web run build", "npm.build"),
        Example("yarn build", "npm.build"),
        Example("yarn test", "npm.test"),
        Example("npm test -- --watch", reason="never-intercept"),
        Example("npm run dev", reason="not-a-build", why="a script of the project may do anything"),
        Example("npm install", reason="never-intercept"),
        Example("npm ci", reason="never-intercept"),
        Example("npm start", reason="never-intercept"),
        Example("npm publish", reason="never-intercept"),
        Example("npm --version", reason="never-intercept"),
        Example("yarn", reason="not-a-build", why="installs"),
        Example("npm run lint", reason="not-a-build"),
    ),
    notes="`pnpm exec tsc --noEmit`, `pnpm tsc --noEmit`, `yarn tsc --noEmit` are `tsc.check` behind this switch.",
)
