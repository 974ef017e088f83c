"""`python -m fewshot.testing` prints the page docs/reference/laws.md."""

from .plugins import LAWS

_INTRODUCTION = """\
<!-- made by `python -m fewshot.testing`: change the code, not this page -->

# Laws

What must be true of each kind of component, as `fewshot check` and `fewshot.testing` try it
([how to check a plugin](../how-to/check-a-plugin.md)). Where the first law of a kind is broken, the
others are not tried.
"""


def page() -> str:
    """Every law in one line, by kind."""
    parts = [_INTRODUCTION]
    for kind in LAWS.values():
        rows = [f"| {law.name} | {law.says.replace('|', '&#124;')} |" for law in kind.laws]
        parts += [f"## {kind.name}\n", "| law | what it says |", "| --- | --- |", *rows, ""]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
