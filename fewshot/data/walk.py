"""What is in a folder or a zip file: every image, and what is passed over, by one rule for all."""

import os
import weakref
import zipfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from attrs import Factory, define

from ..core.errors import DataError
from .natural import natural

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
)  # fmt: skip


class File(NamedTuple):
    """An image file: as much of a path as is needed, where `pathlib.Path` is slow by the 10,000."""

    path: str
    name: str

    def open(self, mode: str) -> IO[Any]:
        """The file, opened."""
        return open(self.path, mode)  # noqa: PTH123

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


class Member(NamedTuple):
    """An image file in a zip file."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    path: str
    name: str

    @property
    def size(self) -> int:
        """Bytes that it inflates to."""
        return self.info.file_size

    def open(self, mode: str) -> IO[Any]:
        """The file, opened; `mode` is "rb"."""
        return self.archive.open(self.info)

    def __str__(self) -> str:
        return self.path


@define(eq=False)
class Place:
    """A folder by its path in messages: its image files and folders, and how many are below."""

    path: str
    files: list[Any] = Factory(list)
    folders: dict[str, "Place"] = Factory(dict)
    images: int = 0  # at any depth

    def holding(self) -> dict[str, "Place"]:
        """Its folders that have images at any depth, in order of name."""
        names = sorted(self.folders, key=natural)
        return {name: self.folders[name] for name in names if self.folders[name].images}

    def own(self) -> list[Any]:
        """The images directly in it, in order."""
        return sorted(self.files, key=lambda file: natural(file.name))

    def below(self) -> Iterator[Any]:
        """Its images at any depth, in order, with their paths from here as names."""
        start = len(self.path.rstrip("/")) + 1
        waiting, found = [self], []
        while waiting:
            place = waiting.pop()
            found += [file._replace(name=file.path[start:]) for file in place.files]
            waiting += place.folders.values()
        return iter(sorted(found, key=lambda file: [*map(natural, file.name.split("/"))]))


@define(eq=False)
class Walk:
    """All that is below a root, and what is passed over, by its path from there."""

    top: Place
    hidden: list[str] = Factory(list)  # images, but for a name or folder that begins with a dot
    others: list[str] = Factory(list)  # no images by their names
    links: list[str] = Factory(list)  # to nothing, or to a folder that is read without them
    unreadable: list[str] = Factory(list)  # folders and files that may not be read
    guessed: list[str] = Factory(list)  # names in a zip file that does not say their encoding

    def notes(self) -> list[str]:
        """A line for everything that is passed over, with counts."""
        lines = []
        if self.unreadable:
            lines.append(f"may not be read, left out: {_some(self.unreadable)}")
        if self.hidden:
            lines.append(
                f"hidden images, passed over: {_some(self.hidden)}; what belongs to a class needs "
                "names without a dot in front"
            )
        if self.others:
            endings = Counter(os.path.splitext(name)[1].lower() for name in self.others)  # noqa: PTH122
            listed = ", ".join(f"{end or 'no ending'} {n}" for end, n in endings.most_common(5))
            lines.append(
                f"files that are no images by their names, passed over: {len(self.others)} "
                f"({listed}); images end in {' '.join(IMAGE_SUFFIXES)}"
            )
        if self.links:
            lines.append(
                "links to nothing, or to folders that are read without them, passed over: "
                f"{_some(self.links)}"
            )
        if self.guessed:
            lines.append(
                f"names whose encoding the zip file does not tell, read as code page 437: "
                f"{_some(self.guessed)}; packed anew with names in UTF-8 they read right"
            )
        return lines


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({names[0]}{' …' if len(names) > 1 else ''})"


def walk(root: Path) -> Walk:
    """Every image of a folder or zip file. Raises DataError where it is neither, or not readable.

    Links are followed, but every folder is read once, by its own name before a link's.
    """
    try:
        if not root.exists():
            web = str(root).startswith(("http:", "https:"))
            raise DataError(f"{root}: no such file or folder{'; download it first' * web}")
        found, places = _in_archive(root) if root.is_file() else _on_disk(root)
    except zipfile.BadZipFile as error:
        raise DataError(f"{root}: neither a folder nor a zip file") from error
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    for place in reversed(places):  # what is inside comes after what it is in
        place.images = len(place.files) + sum(each.images for each in place.folders.values())
    for names in (found.hidden, found.others, found.links, found.unreadable, found.guessed):
        names.sort(key=natural)
    return found


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _take(found: Walk, name: str, path: str, hidden: bool) -> bool:
    """Whether a file is an image to take; noted where it is not."""
    if name.startswith("._") or "__MACOSX" in path.split("/"):
        return False  # macOS's own
    if not _is_image(name):
        if not hidden and not _hidden(name):
            found.others.append(path)
        return False
    if hidden or _hidden(name):
        found.hidden.append(path)
        return False
    return True


def _on_disk(root: Path) -> tuple[Walk, list[Place]]:
    top = Place(str(root))
    found, places = Walk(top), []
    start = len(top.path.rstrip("/")) + 1
    seen = {(s.st_dev, s.st_ino) for s in map(os.stat, root.resolve().parents)}
    Waiting = tuple[Place | None, str, Place, bool]  # noqa: N806 - parent, name, place, hidden
    folders: deque[Waiting] = deque([(None, "", top, False)])
    links: deque[Waiting] = deque()
    while folders or links:
        parent, name, place, hidden = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(place.path)  # noqa: PTH116 - a Path for each takes as long as the rest
            if (status.st_dev, status.st_ino) in seen:
                found.links.append(place.path[start:])
                continue
            with os.scandir(place.path) as scanned:
                entries = list(scanned)
        except OSError:
            if parent is None:
                raise
            found.unreadable.append(place.path[start:])
            continue
        seen.add((status.st_dev, status.st_ino))
        if not hidden:
            places.append(place)
            if parent is not None:
                parent.folders[name] = place
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                link = entry.is_symlink()
                if entry.is_dir():
                    below = hidden or _hidden(entry.name)
                    if not (link and below):
                        inside = (place, entry.name, Place(entry.path), below)
                        (links if link else folders).append(inside)
                elif link and not entry.is_file():
                    found.links.append(entry.path[start:])
                elif _take(found, entry.name, entry.path[start:], hidden):
                    if entry.is_file():
                        place.files.append(File(entry.path, entry.name))
                    else:
                        found.others.append(entry.path[start:])
            except OSError:  # a link to itself, or no right to look
                (found.links if entry.is_symlink() else found.unreadable).append(entry.path[start:])
    return found, places


def _in_archive(path: Path) -> tuple[Walk, list[Place]]:
    """The zip file is closed when nothing refers to it any more."""
    file = path.open("rb")
    try:
        archive = zipfile.ZipFile(file)
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    top = Place(str(path))
    found, places = Walk(top), [top]
    backslashes = not any("/" in name for name in archive.namelist())
    for info in {info.filename: info for info in archive.infolist()}.values():
        full, guessed = _member_name(info)
        # Of Windows, where no name has one; but it is the second byte of some Japanese letters.
        if backslashes or (info.create_system == 0 and not guessed):
            full = full.replace("\\", "/")
        if full.endswith("/"):
            continue
        *folders, name = (part for part in full.split("/") if part not in ("", "."))
        relative = "/".join((*folders, name))
        if not _take(found, name, relative, any(map(_hidden, folders))):
            continue
        if guessed:
            found.guessed.append(relative)
        place = top
        for folder in folders:
            if folder not in place.folders:
                place.folders[folder] = Place(f"{place.path}/{folder}")
                places.append(place.folders[folder])
            place = place.folders[folder]
        place.files.append(Member(archive, info, f"{place.path}/{name}", name))
    return found, places


_UTF8 = 0x800  # of a member's flags: its name is


def _member_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Its name, and whether its encoding had to be guessed: many write UTF-8 and do not say so."""
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename, False
    try:
        return info.filename.encode("cp437").decode("utf-8"), False
    except UnicodeEncodeError:  # of an extra field, which is Unicode
        return info.filename, False
    except UnicodeDecodeError:
        return info.filename, True
