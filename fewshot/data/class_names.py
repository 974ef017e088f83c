"""What may be a class's name, when two are one class, and when they only look like it."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

from ..core.errors import DataError
from ..core.wording import is_text, not_shown

_LONGEST = 255  # bytes: no folder's name can have more
_SHOWN = 40  # letters of a name that is refused


def class_name(name: str) -> str:
    """The class that a name is of: in Unicode's composed form (NFC), without spaces around it.

    A name of nothing but spaces stays what it is.
    """
    return unicodedata.normalize("NFC", name).strip() or name


def require_names(classes: Iterable[str], where: str = "") -> None:
    """Raise DataError, beginning with `where`, for a name that no class may have.

    That is one that is no text, has nothing to see or something that does not show in it, or has
    more than 255 bytes in UTF-8.
    """
    for name in classes:
        if fault := _fault(name):
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
            start = f"{where}: " if where else ""
            raise DataError(f"{start}{shown!r} can be no class's name: {fault}; rename it")


def _fault(name: str) -> str:
    if not is_text(name):
        return "it is no text in UTF-8"
    if not name.strip():
        return "there is nothing to see in it"
    if hidden := not_shown(name):
        return f"U+{ord(hidden[0]):04X} in it does not show"
    if (length := len(name.encode())) > _LONGEST:
        return f"it has {length} bytes in UTF-8, and {_LONGEST} are the most"
    return ""


def as_one(names: Iterable[str]) -> list[str]:
    """A line about each set of different names that are one class."""
    return [
        f"{len(group)} names are one class, {class_name(group[0])}: they differ only in how "
        f"Unicode writes them or in spaces around them ({', '.join(map(ascii, group))})"
        for group in _groups(names, class_name)
    ]


def alike(classes: Iterable[str]) -> list[str]:
    """A line about each set of classes whose names differ in what does not show."""
    return [
        f"{len(group)} classes are written alike, {group[0]}, and differ in their bytes "
        f"({', '.join(map(ascii, group))}): they are counted as {len(group)}; merge or rename them"
        for group in _groups(classes, _shown)
    ]


def _shown(name: str) -> str:
    """Without what takes no room (a zero width space), in its plainest letters (NFKC)."""
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", seen).strip()


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """The different names of one key, where these are several."""
    groups = defaultdict[str, list[str]](list)
    for name in dict.fromkeys(names):
        groups[key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]
