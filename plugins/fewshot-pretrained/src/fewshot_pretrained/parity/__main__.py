"""`python -m fewshot_pretrained.parity [NAME …]`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot import prepare

from .drawn import BOUND


def main(arguments: Sequence[str]) -> int:
    """Print a line for every network asked for, or for all; 1 where any is not what it should be.

    `NAME=PATH` says where a packaged network's published file is.
    """
    prepare()
    try:
        import timm  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"{error}: pip install 'fewshot-pretrained[parity]'", file=sys.stderr)
        return 3
    from . import hub, packaged, text

    known = {component.name: component for component in hub.components()}
    asked = dict(argument.partition("=")[::2] for argument in arguments)
    asked = asked or dict.fromkeys((*packaged.REFERENCES, *known), "")
    unknown = [name for name in asked if name not in {*packaged.REFERENCES, *known}]
    if unknown:
        names = ", ".join((*packaged.REFERENCES, *known))
        print(f"no network '{unknown[0]}': one of {names}", file=sys.stderr)
        return 2
    good = True
    for name, path in asked.items():
        if name in packaged.REFERENCES:
            found = packaged.compare(name, Path(path) if path else None)
            told = "no weights here" if found is None else f"{found:.1e}"
            print(f"{name:26} published weights: {told}", flush=True)
            good &= found is None or found <= packaged.TOLERANCE
        else:
            levels = hub.grey_levels(known[name])
            print(f"{name:26} preprocessing: {levels} grey levels apart", flush=True)
            good &= levels <= 1
            for row in hub.compare(known[name]):
                print(
                    f"{'':26} {row.height}x{row.width} {row.output:5} {row.apart:.1e}", flush=True
                )
                good &= row.apart <= BOUND
            if hub.weights_of(known[name]).text is not None:
                factory: Any = known[name].factory
                apart = text.compare(factory.args[1])
                print(f"{'':26} names {apart:.1e}", flush=True)
                good &= apart <= BOUND
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
