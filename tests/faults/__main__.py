"""Everything that is broken on purpose, one kind after the other.

    python -m tests.faults           a few of each, minutes
    python -m tests.faults --full    all counts, an hour or two

prints their counts, and ends with 1 where one found a fault.
"""

import argparse
import subprocess
import sys

KINDS = ("files", "images", "serve", "resume", "soak")


def main() -> int:
    """Run each, and say which failed."""
    what = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=what)
    parser.add_argument("--full", action="store_true")
    full = ["--full"] if parser.parse_args().full else []
    failed = []
    for kind in KINDS:
        print(f"== {kind}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.faults.{kind}", *full]).returncode:
            failed.append(kind)
    print(f"failed: {', '.join(failed)}" if failed else "no fault found")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
