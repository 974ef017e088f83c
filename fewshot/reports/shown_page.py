"""What episodes look like: a map of their images, and their worst mistakes, as HTML."""

import html
import json
from typing import Any

import numpy as np

from ..core.interfaces import Dataset
from ..core.shown import Shown
from ..data.episode_files import episode_classes
from .page import data_url, html_figure

_THUMBNAIL, _PICTURE = 64, 144  # pixels of a side
_WIDTH, _HEIGHT, _EDGE = 760, 520, 24
_NAMED = 30  # classes whose names are on the map


def embedding_map(dataset: Dataset, shown: Shown) -> str:
    """Where the images of episodes lie, a thumbnail of each where the pointer is."""
    first = shown.episodes[0]
    names = episode_classes(dataset, first)
    labels: dict[int, int] = dict(
        zip(first.items[first.support], first.support_labels, strict=True)
    )
    answers: dict[int, tuple[int, int]] = {
        int(item): (int(own), int(answer))
        for task, given in zip(shown.episodes, shown.answers, strict=True)
        for item, own, answer in zip(task.items[task.query], task.query_labels, given, strict=True)
    }
    drawn: list[str] = []
    points: list[tuple[str, str | None, str]] = []
    middles: dict[int, list[Any]] = {}
    for item, place in zip(shown.mapped.tolist(), shown.places, strict=True):
        x = _EDGE + (place[0] + 1) / 2 * (_WIDTH - 2 * _EDGE)
        y = _EDGE + (place[1] + 1) / 2 * (_HEIGHT - 2 * _EDGE)
        own, answer = answers.get(item, (int(labels.get(item, 0)), -1))
        middles.setdefault(own, []).append((x, y))
        fill = f'style="fill:{_colour(list(middles).index(own))}"'
        if item in answers:
            at = f'cx="{x:.0f}" cy="{y:.0f}"'
            if answer != own:
                drawn.append(f'<circle class="ring" {at} r="9"/>')
            drawn.append(f'<circle class="p" {at} r="6" {fill}/>')
        else:
            square = f'x="{x - 7:.0f}" y="{y - 7:.0f}" width="14" height="14"'
            drawn.append(f'<rect class="p" {square} {fill}/>')
        said = names[answer] if item in answers else None
        points.append((names[own], said, data_url(dataset[item], _THUMBNAIL)))
    texts = ""
    if len(middles) <= _NAMED:
        for label, of in middles.items():
            x, y = np.median(np.array(of), axis=0)
            at = f'x="{x:.0f}" y="{y - 10:.0f}" text-anchor="middle"'
            texts += f"<text {at}>{html.escape(names[label])}</text>"
    data = json.dumps(points, separators=(",", ":")).replace("<", "\\u003c")
    return html_figure(
        f'<svg id="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Map of '
        f'{len(points)} images">{"".join(drawn)}{texts}</svg><div id="tip"></div>'
        f'<script type="application/json" id="points">{data}</script>',
        f"{len(points)} images of {_which(shown)}, of the {len(middles)} classes asked about, each "
        "in its colour. Squares: images that are only support; dots: queries, ringed in red where "
        "the answer was wrong. Point at one to see it. Neighbours here are neighbours among the "
        "embeddings (t-SNE); how far apart two groups lie says nothing.",
    )


def _colour(n: int) -> str:
    """The n-th colour, which differs from those before: the golden angle apart."""
    return f"hsl({n * 137.508 % 360:.0f} {60 + 15 * (n % 2)}% {46 + 8 * (n % 3)}%)"


def mistakes(dataset: Dataset, shown: Shown) -> str:
    """The worst mistakes as pictures; nothing where there are none."""
    if not shown.wrong:
        return ""
    names = episode_classes(dataset, shown.episodes[0])
    cards = ""
    for each in shown.wrong:
        own, answer = names[each.label], names[each.answer]
        cards += (
            '<li class="card">'
            + "".join(
                f"<div>{_picture(dataset, item)}{word}<br><b>{html.escape(name)}</b></div>"
                for item, word, name in (
                    (each.image, "asked: it is", own),
                    (each.own, "nearest of its own", own),
                    (each.taken, "taken for", answer),
                )
                if item is not None or word == "taken for"
            )
            + "</li>"
        )
    failed = [
        given != task.query_labels
        for task, given in zip(shown.episodes, shown.answers, strict=True)
    ]
    count, asked = sum(int(each.sum()) for each in failed), sum(map(len, failed))
    return (
        f'<p class="quiet">{len(shown.wrong)} of {count} wrong answers among '
        f"{asked} queries of {_which(shown)}, the worst of each "
        f"pair of classes first: those much nearer to a "
        f"support image of another class than to any of their own.</p>"
        f'<ul class="cards">{cards}</ul>'
    )


def _which(shown: Shown) -> str:
    return "one episode" if len(shown.episodes) == 1 else "all episodes, which ask each image once"


def _picture(dataset: Dataset, item: int | None) -> str:
    if item is None:
        return ""
    image = dataset[item]
    small = ' class="small"' if max(image.shape[:2]) < 64 else ""
    return f'<img{small} alt="" src="{data_url(image, _PICTURE)}">'
