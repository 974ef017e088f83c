"""What to try next: which advice applies to a run, from its own figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from ..core.figures import KShotRow, RunResults
from .verdict import mistakes, telling_row

GOOD = 0.95  # accuracy from which on nothing is advised

_FEW_CLASSES, _SMALL = 20, 64
_NAMED = 5  # images that may lie in a wrong folder
_WITH_MARGIN = ("contrastive", "triplet")  # which cost nothing beyond it
_MEANS = ("nearest-prototype", "nearest-support", "matching")


@frozen
class Advice:
    """`topic` is a heading of the page "Accuracy is poor: what now?", in the form of its anchor.

    `why`: what in the run's figures says so. `how`: settings or a command.
    """

    topic: str
    why: str
    how: str


def advice(
    results: RunResults,
    records: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
) -> list[Advice]:
    """What applies to a run, the most promising first; nothing where accuracy is `GOOD` already.

    `records`: the lines of its metrics.jsonl, none for an evaluation; `config`: its configuration
    as a tree.
    """
    row = telling_row(results.k_shot)
    classes = manifest["classes"]
    if len(classes["test"]) == 1:
        why = f"'{classes['test'][0]}' is the only test class: nothing follows for others"
        how = "`--set split.draw=true --set split.test_fraction=0.3`, or more classes"
        return [Advice("few-classes", why, how)]
    if row.accuracy >= GOOD:
        return []
    return [
        *_margin(row, records, config),
        *_pretrained(row, results, manifest),
        *_steps(results, records),
        *_head(row, results, config),
        *_data(manifest, config),
        *_augment(results, config),
        *_shots(row, results),
        *_adapter(row, config),
        *_labels(row, results, manifest),
        *_alike(row),
    ]


def _margin(
    row: KShotRow, records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> list[Advice]:
    """Where nothing was learned, and no pair or triplet had come as far as the margin."""
    loss, metric = config["loss"], config["metric"]["name"]
    if loss["name"] not in _WITH_MARGIN or not records or row.accuracy > row.floor:
        return []
    if records[-1].get("above_zero", 0) < 0.99:
        return []
    why = f"a margin of {loss['margin']:g} was out of reach under `{metric}`"
    how = f"`--set loss.margin={float(loss['margin']) / 3:.2g}`, or by the distances there are"
    return [Advice("a-margin-that-fits", why, how)]


def _pretrained(row: KShotRow, results: RunResults, manifest: Mapping[str, Any]) -> list[Advice]:
    """A network that knew nothing before training is hardly above raw pixels then."""
    if results.training is None or not results.training.steps or row.untrained is None:
        return []
    if manifest["data"]["shape"][2] != 3 or row.untrained > row.floor + 0.15:
        return []
    why = f"the network began with random weights ({100 * row.untrained:.0f} % before training)"
    return [Advice("a-pretrained-network", why, "`--preset photos`, of fewshot-pretrained")]


def _steps(results: RunResults, records: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """Where training ended by its steps, at its best."""
    training = results.training
    if training is None or training.stopped != "steps" or not records:
        return []
    if training.best_score is not None and training.best_step < training.steps:
        return []
    losses = [record["loss"] for record in records[-2:]]
    if training.best_score is None and not losses[-1] < 0.98 * losses[0]:
        return []
    what = "loss still fell" if training.best_score is None else "last validation was the best"
    why = f"the {what} when training ended, at step {training.steps}"
    return [Advice("more-steps", why, f"`--steps {4 * training.steps}`")]


def _head(row: KShotRow, results: RunResults, config: Mapping[str, Any]) -> list[Advice]:
    """A head found better on the same episodes, else one that was better elsewhere."""
    same = [
        other
        for other in results.heads
        if (other.k_shot, other.n_way, other.groups) == (row.k_shot, row.n_way, row.groups)
        and other.queries == results.queries
    ]
    if same:
        best = max(same, key=lambda other: other.gain)
        if best.gain_ci95[0] <= 0:
            return []
        why = f"`{best.head}` was {100 * best.gain:.1f} points better on the same episodes"
        return [Advice("another-head", why, f"`--head {best.head}`")]
    if row.k_shot < 2 or config["head"]["name"] not in _MEANS:
        return []
    why = f"the head is `{config['head']['name']}`, which ignores how images of a class differ"
    return [Advice("another-head", why, "`fewshot eval RUN --head lda`, without training again")]


def _data(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> list[Advice]:
    found, (height, width, _) = [], manifest["data"]["shape"]
    known = len(manifest["classes"]["train"])
    if config["training"]["steps"] and 0 < known < _FEW_CLASSES:
        why = f"it was trained on {known} classes"
        found.append(Advice("few-classes", why, "photos of more classes, of whatever kind"))
    if min(height, width) < _SMALL:
        why = f"the images are {width}x{height} pixels"
        found.append(Advice("small-images", why, f"`--set dataset.size={2 * min(height, width)}`"))
    return found


def _augment(results: RunResults, config: Mapping[str, Any]) -> list[Advice]:
    """Where the best came early and no transform varies the images."""
    training = results.training
    if training is None or training.best_score is None or config["augment"]:
        return []
    if training.best_step > training.steps / 2:
        return []
    why = f"the best came early, at step {training.best_step} of {training.steps}"
    return [Advice("crops-and-colours", why, "`--augment crop,flip,colour`")]


def _shots(row: KShotRow, results: RunResults) -> list[Advice]:
    more = [other for other in results.k_shot if other.k_shot > row.k_shot]
    more = [other for other in more if (other.n_way, other.groups) == (row.n_way, row.groups)]
    if not more:
        return []
    best = max(more, key=lambda other: other.accuracy)
    if best.accuracy < row.accuracy + 0.05:
        return []
    why = (
        f"{best.k_shot} images of each class gain {100 * (best.accuracy - row.accuracy):.0f} points"
    )
    return [Advice("more-images-of-each", why, "enrol as many of each class as there are")]


def _adapter(row: KShotRow, config: Mapping[str, Any]) -> list[Advice]:
    if row.k_shot < 5 or config["adapter"]["name"] != "none" or config["backbone"].get("frozen"):
        return []  # `finetune` trains the backbone
    why = f"nothing is trained on the {row.k_shot} images of each class"
    return [Advice("an-adapter", why, "`fewshot eval RUN --adapter finetune`")]


def _labels(row: KShotRow, results: RunResults, manifest: Mapping[str, Any]) -> list[Advice]:
    """Images that lie among those of one other class, else classes that are guessed.

    Of files alone: what a program drew has the label that it was drawn for.
    """
    if "files_sha256" not in manifest["data"]:
        return []
    if found := results.astray:
        named = ", ".join(f"{each.image} ({each.nearest})" for each in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if found[_NAMED:] else ""
        why = f"among images of one other class lie {named}{more}"
        return [Advice("mixed-up-labels", why, "look at each: a hard photo, or a wrong folder")]
    lost = [name for name, share in row.per_class.items() if share <= 1 / row.n_way]
    if not lost or row.accuracy <= 2 / row.n_way:
        return []
    why = f"no better than guessed: {', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}"
    return [Advice("mixed-up-labels", why, "look at the pictures in their folders")]


def _alike(row: KShotRow) -> list[Advice]:
    """A pair of classes mistaken far more often than others."""
    for wrong in mistakes(row)[:1]:
        usual = (1 - row.accuracy) / max(1, len(row.confusion) - 1)
        if wrong.times > 5 and wrong.times / wrong.asked > max(0.1, 3 * usual):
            why = f"{wrong.truth} was taken for {wrong.answer} {wrong.times} of {wrong.asked} times"
            how = "one class of both, or photos that show what differs"
            return [Advice("classes-that-look-alike", why, how)]
    return []
