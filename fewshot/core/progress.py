"""How those who wait are told."""

from collections.abc import Callable

# (stage, done, total, what to show beside it, a line worth keeping or "")
Progress = Callable[[str, int, int, str, str], None]


def silent(stage: str, done: int, total: int, status: str, line: str) -> None:
    """No progress shown."""


# (done, total)
Counting = Callable[[int, int], None]

# (which file, bytes done, bytes in all: 0 where the server does not say)
Fetching = Callable[[str, int, int], None]
