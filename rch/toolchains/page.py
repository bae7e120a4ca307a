"""The page of a toolchain, for people, from what its module says. Pure; run as a program it writes the pages.

python -m rch.toolchains.page        writes <tool>.md beside each module; a test compares them
"""

from __future__ import annotations

from rch.intercept.decision import Kind, Products
from rch.toolchains.rule import Example, Toolchain


def page_of(tool: Toolchain) -> str:
    """Markdown: the kinds, what goes out, what stays and why, the known edges."""
    switch = "on by default" if tool.on_by_default else "off by default"
    parts = [
        f"# {tool.title}",
        f"<!-- Written by python -m rch.toolchains.page from {tool.name}.py. -->",
        f"Switch: `interception.toolchains.{tool.name}`, {switch}.",
        "| kind | what returns | runs again when lost | ignored files travel | must match | confidence |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(map(_row, tool.kinds)),
        "## Goes out",
        "\n".join(_line(example) for example in tool.examples if example.kind),
        "## Stays here",
        "\n".join(_line(example) for example in tool.examples if not example.kind),
    ]
    if tool.notes:
        parts.extend(("## Known edges", tool.notes))
    return "\n\n".join(parts) + "\n"


def _row(kind: Kind) -> str:
    returns = "build directory and tree" if kind.products is Products.FILES else "tree"
    if kind.run_locally_after:
        returns += ", then the program runs here"
    cells = (
        f"`{kind.name}`",
        returns,
        "yes" if kind.repeatable else "no",
        "yes" if kind.ignored_inputs else "no",
        ", ".join(kind.tools) or "nothing",
        f"{kind.confidence:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _line(example: Example) -> str:
    result = example.kind or example.reason
    why = f" ({example.why})" if example.why else ""
    return f"* `{example.command}`: {result}{why}"


if __name__ == "__main__":
    import os.path

    from rch.toolchains import TOOLCHAINS

    for one in TOOLCHAINS:
        with open(os.path.join(os.path.dirname(__file__), f"{one.name}.md"), "w", encoding="utf-8") as page:
            page.write(page_of(one))
