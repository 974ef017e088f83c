"""What every page is made of."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import write_text

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.25rem .7rem;border-bottom:1px solid #d0d7de;
text-align:right;white-space:nowrap}td:first-child{text-align:left;white-space:pre}img{max-width:100%}pre{background:#f6f8fa;padding:1rem;overflow:auto}"""


def percent(value: float) -> str:
    """A share as text."""
    return f"{100 * value:.1f} %"


def interval(pair: Sequence[float]) -> str:
    """An interval of shares as text."""
    return f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}"


def p_value(p: float, n: int) -> str:
    """The p-value of a test of n pairs as text; a dash where one pair gives none."""
    if n < 2:
        return "–"
    return f"{p:.2g}" if p >= 0.0001 else "<0.0001"


def html_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Cells of text as a table."""
    return "<table>{}</table>".format(
        "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in line)}</tr>"
            for tag, line in [("th", header), *(("td", line) for line in cells)]
        )
    )


def html_list(lines: Iterable[str]) -> str:
    """Lines of text as a list."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def html_picture(path: Path) -> str:
    """A PNG file inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(path.name)}" src="data:image/png;base64,{data}"></p>'


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
        "runtime": manifest["runtime"],
    }
    texts = {name: plain(value) for name, value in facts.items()}
    return html_list(f"{name}: {text}" for name, text in texts.items() if text)


def write_page(folder: Path, title: str, body: str) -> None:
    """`report.html` in a folder: one file that needs no other."""
    write_text(
        folder / "report.html",
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>",
    )
