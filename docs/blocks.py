"""The code blocks of a page, and what the comment above one says of how it is tested.

    <!-- tested with: --set training.steps=4 -->     words that the tests add to its commands
    <!-- untested here: wants a Mac's GPU -->         parsed, not run, and why
    <!-- untested here: wants fewshot-pretrained -->  run where that plugin is installed

A block whose first line is a comment with nothing but a file's name is that file.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

_COMMENT = re.compile(r"<!-- (tested with|untested here): (.*?) -->\n?")
_BLOCK = re.compile(
    r"(?:^<!-- (?P<rule>tested with|untested here): (?P<text>.*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml|txt))$")


@frozen
class Block:
    """One fenced block. `line`: of its fence; `added`: words its commands are tested with."""

    page: Path
    line: int
    language: str
    code: str
    added: str
    untested: str

    @property
    def file(self) -> str | None:
        """The name of the file that this block is, if it is one."""
        found = _FILE.match(self.code.partition("\n")[0])
        return found[1] if found else None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a Markdown page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        rule, words = found["rule"], found["text"] or ""
        indent = found["indent"]
        lines = [line.removeprefix(indent) for line in found["code"].splitlines()]
        yield Block(
            page=page,
            line=text.count("\n", 0, found.start("indent")) + 1,
            language=found["language"],
            code="\n".join(lines) + "\n",
            added=words if rule == "tested with" else "",
            untested=words if rule == "untested here" else "",
        )


def commands(block: Block) -> list[str]:
    """The command lines of a shell block: continued lines joined, comments and paths dropped."""
    joined = block.code.replace("\\\n", " ").replace(".venv/bin/", "")
    lines = [re.sub(r"\s+# .*", "", line).strip() for line in joined.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    return [f"{line} {block.added}".strip() for line in lines]


def without_comments(markdown: str) -> str:
    """A page's text without the comments above blocks."""
    return _COMMENT.sub("", markdown)
