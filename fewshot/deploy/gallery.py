"""Answers as one HTML page with pictures, written as they come."""

import base64
import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import DataError, OutputError
from ..core.files import replacing
from .classifier import Classifier
from .support import Prediction

_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1rem}
ul{display:flex;flex-wrap:wrap;gap:.8rem;list-style:none;padding:0}
li{border:3px solid #1a7f37;border-radius:6px;padding:.5rem;width:16rem}
li.unknown{border-color:#8c959f}li.bad{border-color:#cf222e}
img{width:96px;height:96px;object-fit:contain;image-rendering:pixelated}
.near i{display:inline-block;width:56px;height:56px;background-size:contain;
background-repeat:no-repeat;image-rendering:pixelated}
.name{overflow-wrap:anywhere;color:#57606a;font-size:.8rem}"""

Add = Callable[[str, Prediction | DataError], None]


@contextmanager
def gallery(path: Path, classifier: Classifier, title: str) -> Iterator[Add]:
    """`add(name, answer)` puts an answer on the page, which gets its name at the end.

    One file that needs no other; a support picture is in it once. Raises OutputError where it
    cannot be written; an answer that fails leaves no page.
    """
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="replace") as file,
        ):
            shown = html.escape(title)
            file.write(
                '<!doctype html><html lang="en"><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width">'
                f"<title>{shown}</title><style>{_STYLE}</style><h1>{shown}</h1><ul>"
            )
            seen: set[int] = set()
            yield lambda name, answer: _add(file, classifier, seen, name, answer)
            file.write("</ul></html>")
            file.flush()
    except BrokenPipeError:
        raise  # the reader's of what is printed meanwhile
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def data_url(image: NDArray[np.uint8]) -> str:
    """An image (h, w, c) as a PNG inside a page."""
    buffer = BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _add(
    file: IO[str],
    classifier: Classifier,
    seen: set[int],
    name: str,
    answer: Prediction | DataError,
) -> None:
    shown = html.escape(name, quote=True)
    if isinstance(answer, DataError):
        file.write(f'<li class="bad">{html.escape(str(answer))}</li>')
        return
    near = []
    for each in answer.nearest:
        if each.row not in seen:
            seen.add(each.row)
            url = data_url(classifier.support.images[each.row])
            file.write(f"<style>.s{each.row}{{background-image:url({url})}}</style>")
        text = html.escape(f"{each.label}/{each.name}: {each.distance:.3g}", quote=True)
        near.append(f'<i class="s{each.row}" role="img" aria-label="{text}" title="{text}"></i>')
    label, best = answer.label, html.escape(answer.best)
    what = f"<b>{best}</b>" if label is not None else f"<b>unknown</b>, most like {best}"
    sure = "" if answer.confidence is None else f", {answer.confidence:.0%}"
    file.write(
        f'<li class="{"known" if label is not None else "unknown"}">'
        f'<img src="{data_url(answer.pixels)}" alt="{shown}"><div>{what}{sure}, '
        f'distance {answer.distance:.3g}</div><p class="near">{" ".join(near)}</p>'
        f'<div class="name">{shown}</div></li>'
    )
