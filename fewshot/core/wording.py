"""How numbers of things are worded, and how names are written that hold more than letters."""

import re
import unicodedata

# Unicode's format characters steer what shows them, or do not show. Persian and the scripts of
# India are written with these two, though, and they make one emoji of several.
_JOINERS = "\u200c\u200d"
_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, surrogates, ends of lines
_NO_TEXT = re.compile("[\ud800-\udfff]")


def counted(count: int, thing: str, things: str = "") -> str:
    """1 file, 2 files; `things` where the plural takes more than an s."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def not_shown(text: str) -> list[str]:
    """The characters of a text that do not show, or that steer a terminal or a page instead."""
    if text.isprintable():
        return []
    category = unicodedata.category
    return [c for c in text if c not in _JOINERS and category(c) in _NOT_SHOWN]


def is_text(name: str) -> bool:
    """Whether a name on a disk is text, not bytes of another encoding than UTF-8."""
    return _NO_TEXT.search(name) is None


def escaped(name: str) -> str:
    """A name on a disk, with bytes that are no text as \\xff."""
    return _NO_TEXT.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)
