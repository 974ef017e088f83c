"""Images and archives that are damaged or odd: an answer or one line, in bounded time.

`python -m tests.faults.images --full` reads 1,000 images and 100 archives and prints its counts.
"""

import argparse
import struct
import sys
import tempfile
import time
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data.datasets import decode
from fewshot.data.folders import ImageFolderOptions, find_classes, image_folder
from fewshot.data.images import Reading, read

SHAPE = (8, 8, 3)
SECONDS = 5.0  # for one of these small files

Mutation = Callable[[bytes, np.random.Generator], bytes]


class Content:
    """Bytes that are read as a file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, _: str) -> BytesIO:
        return BytesIO(self.content)

    def __str__(self) -> str:
        return "content"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_exif(orientation: int) -> bytes:
    """An orientation, and beside it an altitude's reference of a type that it never has."""
    entry = struct.Struct("<HHI4s")
    main = entry.pack(0x0112, 3, 1, struct.pack("<HH", orientation, 0))
    main += entry.pack(0x8825, 4, 1, struct.pack("<I", 38))  # where its own entries begin
    gps = entry.pack(5, 2, 2, b"0\0\0\0")
    listed = [struct.pack("<H", n) + entries + bytes(4) for n, entries in ((2, main), (1, gps))]
    return b"Exif\0\0II*\0\x08\0\0\0" + b"".join(listed)


def sound() -> dict[str, bytes]:
    """A file of every format and kind of pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    exif = odd_exif(6)
    files = {
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "progressive": encoded(rgb, "JPEG", progressive=True),
        "cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "png": encoded(rgb, "PNG", exif=exif),
        "rgba": encoded(rgb.convert("RGBA"), "PNG"),
        "palette": encoded(rgb.convert("P"), "PNG", transparency=3),
        "16 bits": encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "gif": encoded(rgb.convert("P"), "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "ppm": encoded(rgb, "PPM"),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "tiff": encoded(rgb, "TIFF"),
        "lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "floats": encoded(Image.fromarray(pixels[..., 0].astype(np.float32) / 255), "TIFF"),
    }
    if "AVIF" in Image.SAVE:
        files["avif"] = encoded(rgb, "AVIF")
    return files


def flipped(content: bytes, draw: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for at in draw.integers(0, len(content), draw.integers(1, 9)):
        changed[at] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def cut(content: bytes, draw: np.random.Generator) -> bytes:
    return content[: int(draw.integers(len(content)))]


def spliced(content: bytes, draw: np.random.Generator) -> bytes:
    start, end = sorted(draw.integers(0, len(content), 2).tolist())
    return content[:end] + content[start:]


def large_numbers(content: bytes, draw: np.random.Generator) -> bytes:
    at = int(draw.integers(min(200, len(content))))
    return content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :]


MUTATIONS: tuple[Mutation, ...] = (flipped, cut, spliced, large_numbers)


def outcome(attempt: Callable[[], object]) -> str:
    """What became of it; AssertionError for what is neither an answer nor one line."""
    start, said = time.thread_time(), None
    try:
        attempt()
    except DataError as error:
        said = str(error)
    assert said is None or "\n" not in said, repr(said)
    assert time.thread_time() - start < SECONDS, "too slow"
    return "read" if said is None else "refused in one line"


def images(n: int, seed: int = 0) -> Counter[str]:
    """Read `n` mutated image files of all kinds; how many were read, how many refused."""
    counts, files = Counter[str](), sound()
    draws = np.random.default_rng(seed)
    for content in files.values():
        assert read(Content(content), SHAPE).image.shape == SHAPE
    for i in range(n):
        content = [*files.values()][i % len(files)]
        changed = MUTATIONS[i // len(files) % len(MUTATIONS)](content, draws)
        counts[outcome(lambda c=changed: read(Content(c), SHAPE, Reading(1_000_000)))] += 1
    return counts


# ------------------------------------------------------------------------------ archives

LETTERS = ["cat", "\u00e9a", "\u72ac", "\u0416", "a b", "x" * 80, "e\u0301", "C&A"]


def archives(n: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """`n` archives as programs write them, some then damaged: what each was, what became of it.

    AssertionError where a whole one is not read as it was packed.
    """
    draws = np.random.default_rng(seed)
    png = encoded(Image.new("RGB", (4, 4), "red"), "PNG")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.zip"
        for i in range(n):
            kind = ("plain", "of Windows", "UTF-8 unsaid", "with zeros", "damaged")[i % 5]
            names = [LETTERS[(i + j) % len(LETTERS)] for j in range(3)]
            _pack(path, kind, names, png)
            if kind == "damaged":
                path.write_bytes(MUTATIONS[i % len(MUTATIONS)](path.read_bytes(), draws))
                yield kind, outcome(lambda: decode(image_folder(_options(path))))
                continue
            found = find_classes(path)
            assert len(found.folders) == 3, (kind, names, [*found.folders])
            composed = {unicodedata.normalize("NFC", name) for name in names}
            assert {*found.folders} == composed, (kind, names, [*found.folders])
            became = outcome(lambda: decode(image_folder(_options(path))))
            assert (became == "read") == (kind != "with zeros"), (kind, became)
            yield kind, became


def _options(path: Path) -> ImageFolderOptions:
    return ImageFolderOptions(path=str(path), size=8)


def _pack(path: Path, kind: str, names: list[str], png: bytes) -> None:
    between = "\\" if kind == "of Windows" else "/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            for i in range(2):
                info = zipfile.ZipInfo(f"photos{between}{name}{between}{i}.png")
                if kind == "UTF-8 unsaid":
                    info = _Unsaid(f"photos/{name}/{i}.png")
                archive.writestr(info, png)
        if kind == "with zeros":
            with archive.open(f"photos/{names[0]}/9.png", "w") as file:
                for _ in range(50):
                    file.write(bytes(1 << 20))


class _Unsaid(zipfile.ZipInfo):
    """A member whose name is UTF-8, of which its flags tell nothing."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own
        return self.filename.encode(), self.flag_bits & ~0x800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000 images and 100 archives")
    full = parser.parse_args().full
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    for became, count in sorted(images(1000 if full else 60).items()):
        print(f"images {became}: {count}")
    for (kind, became), count in sorted(Counter(archives(100 if full else 10)).items()):
        print(f"archives {kind}, {became}: {count}")
    print(f"no traceback, none above {SECONDS:.0f} s; {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
