"""`python -m docs`: the generated pages, then the pictures, then the site in `site/`."""

import argparse
import subprocess
import sys
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
    parser.add_argument("--pages", action="store_true", help="only the generated pages")
    arguments = parser.parse_args()
    made = generated.pages()
    if arguments.check:
        stale = [p for p, text in made.items() if not p.exists() or p.read_text() != text]
        for page in stale:
            print(f"{page.relative_to(ROOT)}: not what the code says; python -m docs --pages")
        sys.exit(bool(stale))
    for page, text in made.items():
        write_text(page, text)
    if arguments.pages:
        return
    from . import pictures

    pictures.draw_all()
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"], cwd=ROOT, check=True
    )
    print(f"the site is in {ROOT / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
