"""What a page must be for those who cannot see it or use no mouse."""

from html.parser import HTMLParser


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.level, self.mains = 0, 0
        self.open: str | None = None  # a cell of a header whose text is still to come

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        if tag == "img" and "alt" not in of:
            self.faults.append("an image without a text in its place")
        if (tag == "pre" or of.get("class") == "scroll") and of.get("tabindex") != "0":
            self.faults.append(f"<{tag}> scrolls, and no key reaches it")
        if tag in ("h1", "h2", "h3", "h4"):
            if int(tag[1]) > self.level + 1:
                self.faults.append(f"<{tag}> below a heading of level {self.level}")
            self.level = int(tag[1])
        self.mains += tag == "main"
        self.open = tag if tag in ("th", "title", "h1") else self.open

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.open = None

    def handle_endtag(self, tag: str) -> None:
        if self.open == tag:
            self.faults.append(f"an empty <{tag}>")
            self.open = None


def faults(page: str) -> list[str]:
    """What an accessibility checker would say of it, as far as the text alone tells."""
    reader = _Reader()
    reader.feed(page)
    if reader.mains != 1:
        reader.faults.append(f"{reader.mains} <main>")
    return reader.faults
