"""What mkdocs asks for each page: the comments above blocks become lines that a reader sees."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.blocks import comments_shown


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page's Markdown, its comments shown."""
    return comments_shown(markdown)
