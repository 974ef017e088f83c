"""The driver's part: starts the sides, asks them in turn, and makes ratios of their answers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from attrs import field, frozen

from .settings import Settings

ROOT = Path(__file__).parents[1]


class SkippedError(Exception):
    """A row cannot be measured here; the text says why."""


class UnlikeError(Exception):
    """Two sides do not compute the same thing."""


@frozen
class Side:
    """A process that has set up and waits to be asked."""

    target: str
    facts: Mapping[str, Any]
    process: "subprocess.Popen[str]" = field(repr=False)

    def ask(self, n: int) -> dict[str, Any]:
        """Have it do n iterations; its reply."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return _reply(self.process, self.target)


def _reply(process: "subprocess.Popen[str]", target: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{target} ended with exit code {process.wait()}; see above")
    return json.loads(line)


@contextmanager
def side(target: str, env: Mapping[str, str] | None = None, **options: Any) -> Iterator[Side]:
    """Start `module:function` of this package in its own process.

    Raises SkippedError where a peer is missing.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", target, json.dumps(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        first = _reply(process, target)
        if "missing" in first:
            raise SkippedError(first["missing"])
        yield Side(target, first["facts"], process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def sides(*wanted: tuple[str, Mapping[str, Any]]) -> Iterator[list[Side]]:
    """Several at once: (target, options) each."""
    with ExitStack() as stack:
        yield [stack.enter_context(side(target, **options)) for target, options in wanted]


def alternate(taking_turns: Sequence[Side], settings: Settings) -> list[list[dict[str, Any]]]:
    """Every side's replies, one a round, asked A B A B …

    How many iterations fill a turn is found first, for each side, in two turns that do not count
    (the first of which sets up what is set up lazily). A side may name a `least` among its facts.
    """
    counts = []
    for each in taking_turns:
        least = each.facts.get("least", 1) if settings.turn else 1
        each.ask(least)
        time.sleep(settings.pause)
        seconds = each.ask(least)["each"]
        counts.append(max(least, round(settings.turn / seconds)))
    replies: list[list[dict[str, Any]]] = [[] for _ in taking_turns]
    for _ in range(settings.rounds):
        for each, count, own in zip(taking_turns, counts, replies, strict=True):
            time.sleep(settings.pause)
            own.append(each.ask(count))
    return replies


def seconds(replies: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds per iteration, one number a round."""
    return [reply["each"] for reply in replies]


@frozen
class Ratio:
    """Median and extremes of one ratio a round, and what it is of what."""

    of: str
    median: float
    low: float
    high: float
    rounds: int


def ratio(of: str, above: Sequence[float], below: Sequence[float]) -> Ratio:
    """`above` over `below`, round by round."""
    every = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(of, median(every), min(every), max(every), len(every))


@frozen
class Result:
    """A row of the table. `ours` and `peer` are for reading, with their units."""

    what: str
    ours: str
    peer: str = ""
    against: str = ""
    ratio: Ratio | None = None
    note: str = ""
    checked: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(factory=dict)


def fastest(peers: Sequence[list[dict[str, Any]]]) -> int:
    """Which of the peer's ways to compare with: the one with the lowest median."""
    medians = [median(seconds(replies)) for replies in peers]
    return medians.index(min(medians))


def in_two_formats(
    what: str,
    parts: Sequence[Side],
    replies: Sequence[list[dict[str, Any]]],
    shown: Callable[[list[dict[str, Any]]], str],
    checked: tuple[str, ...],
) -> Result:
    """Ours against PyTorch, contiguous and channels last, in the faster of the two."""
    mine, *peers = replies
    facts, best, names = parts[1].facts, fastest(peers), ("contiguous", "channels last")
    return Result(
        what=what,
        ours=shown(mine),
        peer=shown(peers[best]),
        against=f"{facts['peer']}, {facts['threads']} threads, {names[best]}",
        ratio=ratio("speed", seconds(peers[best]), seconds(mine)),
        checked=checked,
        figures={"ours": seconds(mine), **dict(zip(names, map(seconds, peers), strict=True))},
    )


def beside(
    named: Mapping[str, Sequence[Mapping[str, Any]]],
    mine: Sequence[Mapping[str, Any]],
    shown: Callable[[list[dict[str, Any]]], str],
) -> str:
    """Others that were asked in the same rounds: their figures, and our speed over theirs."""
    told = []
    for name, replies in named.items():
        speed = ratio("speed", seconds(replies), seconds(mine))
        told.append(
            f"{name} {shown([*map(dict, replies)])}, "
            f"{speed.median:.2f} ({speed.low:.2f}–{speed.high:.2f})"
        )
    return "; ".join(told)


def require_same(sides_: Sequence[Side], *names: str) -> tuple[str, ...]:
    """UnlikeError where the sides differ in a fact; else what was found the same."""
    first = sides_[0]
    for name in names:
        for other in sides_[1:]:
            if first.facts[name] != other.facts[name]:
                raise UnlikeError(
                    f"{name}: {first.target} has {first.facts[name]}, "
                    f"{other.target} {other.facts[name]}"
                )
    return tuple(f"{name} {first.facts[name]}" for name in names)


def require_close(sides_: Sequence[Side], name: str, tolerance: float) -> tuple[str, ...]:
    """The same for a fact that is a list of numbers, to a tolerance."""
    first = sides_[0]
    worst = 0.0
    for other in sides_[1:]:
        pairs = zip(first.facts[name], other.facts[name], strict=True)
        worst = max(worst, *(abs(a - b) for a, b in pairs))
        if not worst <= tolerance:
            raise UnlikeError(f"{name}: {first.target} and {other.target} differ by {worst:g}")
    return (f"{name} equal to {tolerance:g}",)


def require_falling(replies: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    """UnlikeError where the loss of a side's last turn is not below that of its very first."""
    for own in replies:
        if not own[-1]["loss"] < own[-1]["first loss"]:
            raise UnlikeError(f"a loss does not fall: {[reply['loss'] for reply in own]}")
    return ("loss falls on every side",)
