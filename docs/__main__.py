"""`python -m docs`: the site in `site/`, of what is there; nothing else is written.

`--pages`, `--pictures` and `--screens` make anew what of it is generated.
"""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fewshot.core.files import write_text

from . import generated

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Make what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    parser.add_argument(
        "--check", action="store_true",
        help="write nothing; fail where a generated page is not what the code says",
    )  # fmt: skip
    parser.add_argument("--pages", action="store_true", help="make the generated pages anew")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures anew")
    parser.add_argument(
        "--screens", action="store_true", help="take the pictures of the pages anew, by Chromium"
    )
    arguments = parser.parse_args()
    made = generated.pages()
    if arguments.check:
        stale = [p for p, text in made.items() if not p.exists() or p.read_text() != text]
        for page in stale:
            print(f"{page.relative_to(ROOT)}: not what the code says; python -m docs --pages")
        sys.exit(bool(stale))
    if arguments.pages:
        for page, text in made.items():
            write_text(page, text)
    if arguments.pictures:
        from . import pictures

        pictures.draw_all()
    if arguments.screens:
        from . import screens

        screens.take_all()
    if not (arguments.pages or arguments.pictures or arguments.screens):
        _build()


def _build() -> None:
    if find_spec("material") is None:
        sys.exit("the site wants one package more: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"]
    # The theme would print an announcement of its own.
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    print(f"the site is in {ROOT / 'site' / 'index.html'}; its search wants a server:")
    print(f"python -m http.server --directory {ROOT / 'site'}")


if __name__ == "__main__":
    main()
