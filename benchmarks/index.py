"""Finding and decoding the images of a large folder, the first time and the second."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from .images import jpeg_folder
from .settings import Settings
from .sides import Ratio, Result, side
from .worker import Turn

CLASSES, ORIGINALS = 29, 10  # of each class


def numbered_links(folder: Path, originals: Path, count: int) -> Path:
    """`count` numbered files, hard links to the originals of their class (copies where none go)."""
    per_class = -(-count // CLASSES)
    left = count
    for place in sorted(originals.iterdir()):
        target = folder / place.name
        target.mkdir(parents=True)
        files = sorted(place.iterdir())
        for i in range(min(per_class, left)):
            path, original = target / f"{i + 1}.jpg", files[i % len(files)]
            try:
                os.link(original, path)
            except OSError:  # another file system, or more links than it allows
                path.write_bytes(original.read_bytes())
        left -= min(per_class, left)
    return folder


def ours(folder: str) -> tuple[dict[str, Any], Turn]:
    """A process of its own each time, so nothing but files is left from the first."""
    import fewshot as fs

    fs.decode  # noqa: B018 - imports what it needs, which is not what is timed

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        files = fs.image_folder(fs.ImageFolderOptions(path=folder))
        found = time.perf_counter()
        data = fs.decode(files)
        total = int(data.images[:, ::16, ::16].sum())  # looks into every image
        done = time.perf_counter()
        return {
            "finding": found - began,
            "decoding": done - found,
            "each": done - began,
            "images": len(data.labels),
            "sum": total,
        }

    return {}, turn


def measure(settings: Settings) -> Result:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        originals = jpeg_folder(root / "originals", CLASSES, ORIGINALS)
        folder = numbered_links(root / "images", originals, settings.files)
        env = {"FEWSHOT_CACHE": str(root / "cache")}  # the user's own cache is left alone
        replies = []
        for _ in range(2):
            with side("index:ours", env=env, folder=str(folder)) as part:
                replies.append(part.ask(1))
    first, second = replies
    assert first["images"] == second["images"] == settings.files
    assert first["sum"] == second["sum"]
    times = first["each"] / second["each"]
    return Result(
        what=f"finding and decoding {settings.files:,} JPEGs of 200x200, the second time",
        ours=f"{second['each']:.1f} s",
        peer=f"{first['each']:.1f} s",
        against="the first time",
        ratio=Ratio("speed", times, times, times, 1),
        note=f"finding the files {first['finding']:.1f} s, then {second['finding']:.1f} s",
        checked=(f"{settings.files} images, equal in both",),
        figures={"first": first, "second": second},
    )
