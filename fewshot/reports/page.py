"""What every page is made of."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.files import write_text

_READABLE = 234  # pixels of height that a picture needs
_PIXELS = 110 / 72  # of a picture's point


def percent(value: float) -> str:
    """A share as text."""
    return f"{100 * value:.1f} %"


def interval(pair: Sequence[float]) -> str:
    """An interval of shares as text."""
    return f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}"


def p_value(p: float, n: int = 2) -> str:
    """The p-value of a test of n pairs, else of several, as text; a dash where one gives none."""
    if n < 2:
        return "–"
    return f"{p:.2g}" if p >= 0.0001 else "<0.0001"


def html_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Cells of text as a table."""
    return '<div class="scroll" tabindex="0"><table>{}</table></div>'.format(
        "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in line)}</tr>"
            for tag, line in [("th", header), *(("td", line) for line in cells)]
        )
    )


def html_list(lines: Iterable[str]) -> str:
    """Lines of text as a list."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def html_picture(path: Path, alt: str, caption: str = "") -> str:
    """An SVG file inside the page, with text below it; `alt`: what it is, in its place.

    On a narrow screen it scrolls rather than shrink to less than can be read.
    """
    drawn = path.read_bytes()
    width, height = map(float, re.findall(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    size = f"width:{width * _PIXELS:.0f}px;min-width:{_READABLE * width / height:.0f}px"
    return html_figure(
        f'<div class="scroll" tabindex="0"><img alt="{html.escape(alt)}" style="{size}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"></div>',
        caption,
    )


def html_figure(inside: str, caption: str = "") -> str:
    """A figure of HTML with a caption of text."""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{inside}{below}</figure>"


def data_url(image: NDArray[np.uint8], side: int | None = None) -> str:
    """An image (h, w, c) inside a page: a PNG, or scaled to `side` pixels at most, a JPEG."""
    drawn, buffer = Image.fromarray(image.squeeze()), BytesIO()
    if side is None or max(drawn.size) <= 32:
        drawn.save(buffer, "PNG")
        kind = "png"
    else:
        drawn.thumbnail((side, side))
        drawn.save(buffer, "JPEG", quality=82)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def plain(value: Any) -> str:
    """A fact as people read it, nothing for one that is missing."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case Mapping():
            texts = {str(name).replace("_", " "): plain(each) for name, each in value.items()}
            return ", ".join(f"{name} {text}" for name, text in texts.items() if text)
        case list() | tuple():
            return "; ".join(map(plain, value))
        case _:
            return str(value)


def made_by(manifest: Mapping[str, Any]) -> str:
    """The machine and the versions, from a manifest."""
    data = manifest["data"]
    facts = {
        "started": manifest["started"].replace("T", " ").replace("+00:00", " UTC"),
        "images": f"{plain(data['images'])} of {'x'.join(map(str, data['shape']))}",
        "parameters": manifest["parameters"],
        "versions": manifest["versions"],
        "machine": manifest["machine"],
        "device": re.sub(r"Device\((\w+), 0\)", r"\1", manifest["device"]),  # as MLX prints it
        "runtime": {k: v for k, v in (manifest["runtime"] or {}).items() if k != "blas_path"},
    }
    texts = {name: plain(value) for name, value in facts.items()}
    return html_list(f"{name}: {text}" for name, text in texts.items() if text)


def write_page(folder: Path, title: str, body: str, lead: str = "", script: str = "") -> None:
    """`report.html` in a folder: one file that needs no other, and may ask for none.

    `lead`: what is to be read first, as text. Every `<h2>` of `body` begins a section, which the
    contents name. `script`: the name of one of the files in `web`.
    """
    before, *sections = body.split("<h2>")
    shown, first = html.escape(title), html.escape(lead)
    contents, wrapped = "", ""
    for number, section in enumerate(sections, start=1):
        contents += f'<li><a href="#part-{number}">{section.partition("</h2>")[0]}</a></li>'
        wrapped += f'<section id="part-{number}"><h2>{section}</section>'
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
        f"<title>{shown}</title><style>{_file('page.css')}</style></head><body>",
        f"<header><h1>{shown}</h1>",
        f'<p class="lead">{first}</p>' if lead else "",
        f'{before}<nav aria-label="Contents"><ul>{contents}</ul></nav></header>',
        f"<main>{wrapped}</main>",
        f"<script>{_file(script)}</script>" if script else "",
        "</body></html>",
    ]
    write_text(folder / "report.html", "".join(lines))


def _file(name: str) -> str:
    return files("fewshot.reports").joinpath("web", name).read_text("utf-8")
