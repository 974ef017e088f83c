"""Everything that is found out about trained parts: figures and floors; nothing is written."""

import time
from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx
import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ..compute.modules import is_frozen, snapshot
from ..core.draws import Episode, EpisodeBlock, Ints
from ..core.figures import AdapterGain, Astray, HeadRow, KShotRow, RunResults
from ..core.interfaces import Head, Metric
from ..core.progress import Progress
from ..core.shown import Shown
from ..data.episode_files import image_names
from ..engine.adaptation import adapted_embeddings, evaluate_adapted, gain
from ..engine.astray import astray
from ..engine.calibration import calibrated
from ..engine.embedding import embed_task, raw_pixels, recentre, settled, spread
from ..engine.evaluation import Evaluation, evaluate, predict, unembedded
from ..engine.inference import Engine
from ..engine.protocol import Setting, held_out_episodes, needed
from ..engine.shown import shown as look
from ..engine.speed import embedding_speed
from ..engine.statistics import paired_test
from ..engine.verification import verify
from ..parts.heads.prototypes import nearest_prototype
from ..parts.metrics import euclidean
from .assembly import Draws, Parts, embedded


@frozen(eq=False)
class Examination:
    """What was found out, and what it looks like.

    `first`: by K, the first episode of the first setting; `shown`: the one of K nearest 5, or
    all of its leave-one-out.
    """

    results: RunResults
    first: dict[int, Episode]
    shown: Shown


def examine(
    parts: Parts, draws: Draws, blank: list[tuple[str, mx.array]], progress: Progress
) -> Examination:
    """Every figure of an evaluation; floor rows on the same episodes.

    `blank`: the learned parts' weights before training, or before they were given any.
    """
    dataset, memory = parts.dataset, parts.config.evaluation.memory
    names = image_names(dataset)
    total = (3 + len(parts.other_heads)) * len(draws.episodes)

    def evaluations(
        rows: NDArray[np.float32],
        head: Head,
        metric: Metric,
        before: int,
        text: NDArray[np.float32] | None,
        crops: Ints | None = None,
    ) -> dict[Setting, Evaluation]:
        evaluated, missing = {}, unembedded(rows)
        for done, (setting, tasks) in enumerate(draws.episodes.items(), start=1):
            evaluated[setting] = evaluate(
                rows, tasks, head, metric, dataset.classes, names, memory, missing, setting.once,
                text, setting.dirichlet > 0, crops,
            )  # fmt: skip
            progress("episodes", before * len(draws.episodes) + done, total, "", "")
        return evaluated

    # One after the other: of many images each table is large.
    held_out = {}
    if parts.head.queries == "alone":  # else no query has an answer of its own
        held_out = held_out_episodes(dataset, parts.split, parts.config.evaluation)
    asked = [block for both in held_out.values() for blocks in both for block in blocks]
    trained = "backbone" if _as_it_came(parts) else "trained backbone"
    engine = Engine("auto")
    rows, crops = _embeddings(parts, draws, trained, progress, asked, engine)
    apart = spread(rows)
    rows = plain_rows = settled(rows)
    text, reads = None, parts.head.names
    if reads or any(setting.k_shot == 0 for setting in draws.episodes):
        text = parts.embedder.of_names(dataset.classes)
    unknown = calibrated(rows, held_out, parts.head, parts.metric, text if reads else None, crops)
    ours = evaluations(rows, parts.head, parts.metric, 0, text, crops)
    heads: list[HeadRow] = []
    for before, (name, other) in enumerate(parts.other_heads.items(), start=3):
        heads += _other_head(parts, draws, rows, text, crops, name, other, ours)
        progress("episodes", before * len(draws.episodes), total, "", "")
    first = _first_episodes(draws)
    shown = _to_show(draws)
    verification = None
    if draws.pairs is not None:
        learned = parts.loss.layout == "pairs" and parts.sampler is not None
        margin = parts.loss.margin if learned else None
        verification = verify(rows, *draws.pairs, parts.metric, margin)
    gains: dict[Setting, AdapterGain] = {}
    backbone_frozen = is_frozen(parts.embedder.backbone)
    untrained: dict[Setting, Evaluation] = {}
    if parts.config.evaluation.untrained and not (backbone_frozen and parts.sampler is None):
        untrained = ours
    head, crops_shown = parts.head, crops
    if parts.config.adapter.name != "none":
        ours, gains = _adapted(parts, draws, ours, names, progress)
        shown = shown[:1]  # another would need another network
        (one,) = shown
        task = (parts.adapter, parts.embedder, dataset, one, parts.metric, parts.config.seed)
        rows, crops_shown, fitted, _ = adapted_embeddings(*task)
        head = fitted or head
    of_shown = None if text is None else text[np.array(shown[0].classes)]
    answers = [
        predict(rows, each, head, parts.metric, memory, of_shown, crops_shown) for each in shown
    ]
    seen = look(rows, shown, answers, parts.metric)
    weights = snapshot(parts.learned)
    if untrained and not _same(weights, blank):
        parts.learned.load_weights(blank)
        if backbone_frozen:
            rows = plain_rows
        else:
            recentre(parts.embedder, dataset, parts.training_images)  # by its own mean
            rows, crops = _embeddings(parts, draws, "untrained backbone", progress)
            rows = settled(rows)
        untrained = evaluations(rows, parts.head, parts.metric, 1, text, crops)
        parts.learned.load_weights(weights)
    # A learned head is one of embeddings of the backbone's length.
    plain = parts.head if parts.head.module is None else nearest_prototype()
    rows = raw_pixels(
        dataset, needed(task for blocks in draws.episodes.values() for task in blocks)
    )
    # A name says nothing of pixels: all classes are equally near.
    nothing = None if text is None else np.zeros((len(text), rows.shape[1]), np.float32)
    floor = evaluations(rows, plain, euclidean(), 2, nothing)
    results = RunResults(
        k_shot=tuple(
            _row(setting, blocks, ours[setting], floor[setting],
                 untrained.get(setting),
                 gains.get(setting))
            for setting, blocks in draws.episodes.items()
        ),
        verification=verification,
        speed=embedding_speed(parts.embedder, parts.shape, engine=engine),
        unknown=unknown,
        queries=parts.head.queries,
        heads=tuple(heads),
        spread=apart,
        astray=tuple(
            Astray(names[i], dataset.classes[label])
            for i, label in astray(
                plain_rows[: len(dataset.labels)], dataset.labels, dataset.groups
            )
        ),
    )  # fmt: skip
    return Examination(results, first, seen)


def _other_head(
    parts: Parts,
    draws: Draws,
    rows: NDArray[np.float32],
    text: NDArray[np.float32] | None,
    crops: Ints | None,
    name: str,
    head: Head,
    ours: Mapping[Setting, Evaluation],
) -> Iterator[HeadRow]:
    """What another head makes of the same embeddings, in every setting."""
    missing, memory = unembedded(rows), parts.config.evaluation.memory
    for setting, tasks in draws.episodes.items():
        began = time.process_time()
        found = evaluate(
            rows, tasks, head, parts.metric, parts.dataset.classes, None, memory, missing,
            setting.once, text, setting.dirichlet > 0, crops,
        )  # fmt: skip
        seconds = (time.process_time() - began) / sum(map(len, tasks))
        test = paired_test(ours[setting].per_episode, found.per_episode)
        yield HeadRow(
            head=name,
            queries=head.queries,
            k_shot=setting.k_shot,
            n_way=tasks[0].n_way,
            groups=setting.groups,
            accuracy=found.accuracy,
            ci95=found.ci95,
            gain=test.difference,
            gain_ci95=test.ci95,
            gain_p=test.p,
            cpu_seconds=seconds,
            protocol=setting.protocol,
            dirichlet=setting.dirichlet,
            balance=found.balance,
        )


def _same(one: list[tuple[str, mx.array]], other: list[tuple[str, mx.array]]) -> bool:
    """Whether two snapshots are of the same weights."""
    pairs = zip(one, other, strict=True)
    return all(a is b or bool(mx.array_equal(a, b)) for (_, a), (_, b) in pairs)


def _embeddings(
    parts: Parts,
    draws: Draws,
    what: str,
    progress: Progress,
    more: Sequence[EpisodeBlock] = (),
    engine: Engine | None = None,
) -> tuple[NDArray[np.float32], Ints | None]:
    """Embeddings of every image that the evaluation, and `more`, needs: `embed_task`."""
    tasks = [task for blocks in draws.episodes.values() for task in blocks]
    items = needed([*tasks, *more, *(draws.pairs or ())])
    stage, engine = f"embedding, {what}", engine or Engine("auto")

    def say(line: str) -> None:
        progress(stage, 0, len(items), "", line)

    found = embed_task(
        parts.embedder,
        parts.dataset,
        items,
        [*tasks, *more],
        progress=lambda done, total: progress(stage, done, total, "", ""),
        engine=engine,
        kept=embedded(parts, say),
    )
    if engine.hint:
        say(engine.hint)
    return found


def _as_it_came(parts: Parts) -> bool:
    """Whether the backbone was not trained."""
    return parts.sampler is None or is_frozen(parts.embedder.backbone)


def _main(draws: Draws) -> dict[Setting, list[EpisodeBlock]]:
    """Those of the first n_way and grouping, for every K."""

    def part(setting: Setting) -> Setting:
        return evolve(setting, k_shot=0, protocol="episodes")

    first = part(next(iter(draws.episodes)))
    return {key: blocks for key, blocks in draws.episodes.items() if part(key) == first}


def _first_episodes(draws: Draws) -> dict[int, Episode]:
    """By K: the first episode of the first n_way and grouping."""
    return {setting.k_shot: blocks[0].episode(0) for setting, blocks in _main(draws).items()}


def _to_show(draws: Draws) -> list[Episode]:
    """Of K nearest 5 the first episode; of a leave-one-out all, which ask each image once."""
    main = _main(draws)
    setting = min(main, key=lambda each: abs(each.k_shot - 5))
    blocks = main[setting] if setting.protocol == "leave-one-out" else main[setting][:1]
    return [block.episode(0) for block in blocks]


def _adapted(
    parts: Parts,
    draws: Draws,
    without: dict[Setting, Evaluation],
    names: Sequence[str],
    progress: Progress,
) -> tuple[dict[Setting, Evaluation], dict[Setting, AdapterGain]]:
    """The evaluations with the adapter, and its gains."""
    total = sum(len(block) for blocks in draws.episodes.values() for block in blocks)
    adapted: dict[Setting, Evaluation] = {}
    gains: dict[Setting, AdapterGain] = {}
    before = 0
    for setting, blocks in draws.episodes.items():

        def shown(done: int, before: int = before) -> None:
            progress("adapting", before + done, total, "", "")

        adapted[setting], seconds = evaluate_adapted(
            parts.adapter,
            parts.embedder,
            parts.dataset,
            blocks,
            parts.head,
            parts.metric,
            names,
            parts.config.seed,
            parts.config.evaluation.memory,
            shown,
            setting.once,
            setting.dirichlet > 0,
        )
        gains[setting] = gain(without[setting], adapted[setting], seconds)
        before += sum(map(len, blocks))
        line = (
            f"K = {setting.k_shot}: {adapted[setting].accuracy:.1%}, "
            f"without {without[setting].accuracy:.1%}"
        )
        progress("adapting", before, total, "", line)
    return adapted, gains


def _row(
    setting: Setting,
    blocks: list[EpisodeBlock],
    ours: Evaluation,
    floor: Evaluation,
    untrained: Evaluation | None,
    adapter: AdapterGain | None,
) -> KShotRow:
    return KShotRow(
        k_shot=setting.k_shot,
        n_way=blocks[0].n_way,
        accuracy=ours.accuracy,
        ci95=ours.ci95,
        ci95_classes=ours.ci95_classes,
        floor=floor.accuracy,
        floor_ci95=floor.ci95,
        untrained=None if untrained is None else untrained.accuracy,
        untrained_ci95=None if untrained is None else untrained.ci95,
        groups=setting.groups,
        episodes=sum(len(block) for block in blocks),
        queries=sum(block.query.size for block in blocks),
        per_class=ours.per_class,
        per_episode=tuple(ours.per_episode.tolist()),
        confusion={
            name: {
                ours.classes[j]: int(ours.confusion[i, j])
                for j in np.flatnonzero(ours.confusion[i])
            }
            for i, name in enumerate(ours.classes)
            if ours.confusion[i].any()
        },
        digest=ours.digest,
        adapter=adapter,
        protocol=setting.protocol,
        dirichlet=setting.dirichlet,
        balance=ours.balance,
    )
