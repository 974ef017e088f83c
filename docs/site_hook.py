"""What mkdocs asks for each page: it is left as a reader of the site can use it."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.blocks import without_comments

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:benchmarks|examples|fewshot|plugins)/[^)]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page's Markdown without what only the tests read; a link to a source names it."""
    return _OUTSIDE.sub(r"\1 (`\2`)", without_comments(markdown))
