"""One side of a comparison, in a process of its own: sets up, then works when it is asked.

    python -m benchmarks.worker MODULE:FUNCTION '{"option": value}'

The function returns facts (what was set up, for the driver to check) and `turn(n)`, which does n
iterations and returns {"each": seconds per iteration, ...}. One JSON line goes out for the facts
and one for each line that comes in, which is n.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import PeerMissingError

Turn = Callable[[int], dict[str, Any]]


def main() -> None:
    target, options = sys.argv[1], json.loads(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not end up among the replies

    def say(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    cores = options.pop("cores", None)
    if cores is not None:  # before anything counts the cores to start its threads
        os.sched_setaffinity(0, cores)
    module, _, function = target.partition(":")
    try:
        facts, turn = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
    except PeerMissingError as error:
        say({"missing": str(error)})
        return
    say({"facts": facts})
    for line in sys.stdin:
        say(turn(int(line)))


if __name__ == "__main__":
    main()
