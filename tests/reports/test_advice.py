"""Advice is of what a run's figures show, and the page says more of each."""

import re
from pathlib import Path
from typing import Any

from attrs import evolve
from figures import results
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.core.figures import Astray, RunResults, TrainingSummary
from fewshot.reports.advice import GOOD, advice
from fewshot.reports.verdict import telling_row

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "poor-accuracy.md"
ANCHORS = [
    line[3:].lower().replace(" ", "-")
    for line in PAGE.read_text().splitlines()
    if line[:3] == "## "
]

trainings = st.builds(
    TrainingSummary, st.just(300), st.sampled_from([50, 300]), st.sampled_from([None, 0.5]),
    st.just(1.0), st.just(1.0), st.sampled_from(["steps", "patience"]),
)  # fmt: skip


def manifest(classes: int, size: int, of: str = "files_sha256") -> dict[str, Any]:
    names = {"train": [str(i) for i in range(classes)], "test": ["a", "b"], "val": []}
    return {"classes": names, "data": {"shape": [size, size, 3], of: "0"}}


def config(
    head: str = "lda", augment: tuple[str, ...] = (), loss: str = "contrastive", steps: int = 300
) -> dict[str, Any]:
    return {
        "head": {"name": head}, "adapter": {"name": "none"}, "augment": [*augment],
        "loss": {"name": loss, "margin": 1.0}, "metric": {"name": "manhattan"},
        "backbone": {"name": "conv4"}, "training": {"steps": steps},
    }  # fmt: skip


def topics(*given: Any) -> list[str]:
    return [each.topic for each in advice(*given)]


@settings(max_examples=30)
@given(results, trainings | st.none(), st.integers(2, 40), st.sampled_from([32, 84]))
def test_advice_has_its_place_in_the_page(
    found: RunResults, training: TrainingSummary | None, classes: int, size: int
) -> None:
    found = evolve(found, training=training)
    for head in ("lda", "nearest-prototype"):
        steps = training.steps if training else 0
        given_ = topics(found, [], manifest(classes, size), config(head, steps=steps))
        assert {*given_} <= {*ANCHORS}
        assert len({*given_}) == len(given_)
        if telling_row(found.k_shot).accuracy >= GOOD:
            assert not given_
        else:
            assert ("few-classes" in given_) == (classes < 20 and training is not None)
            assert ("small-images" in given_) == (size < 64)


@settings(max_examples=30)
@given(results, trainings, st.floats(0.1, 2), st.floats(0.1, 2))
def test_more_steps_are_advised_where_training_ended_at_its_best(
    found: RunResults, training: TrainingSummary, before: float, last: float
) -> None:
    poor = tuple(evolve(row, accuracy=0.5) for row in found.k_shot)
    found = evolve(found, training=training, k_shot=poor)
    given_ = topics(
        found,
        [{"loss": before, "above_zero": 0.5}, {"loss": last, "above_zero": 0.5}],
        manifest(30, 84),
        config(),
    )
    if training.stopped != "steps":
        best = False
    elif training.best_score is None:
        best = last < 0.98 * before
    else:
        best = training.best_step == training.steps
    assert ("more-steps" in given_) == best


@settings(max_examples=20)
@given(results)
def test_one_test_class_is_all_that_is_said(found: RunResults) -> None:
    alone = manifest(30, 84)
    alone["classes"]["test"] = ["a"]
    (only,) = advice(found, [], alone, config())
    assert re.search("only test class", only.why)


@settings(max_examples=30)
@given(results, st.integers(0, 9))
def test_images_that_may_lie_in_a_wrong_folder_are_named(found: RunResults, count: int) -> None:
    names = [f"a/{i}.jpg" for i in range(count)]
    poor = tuple(evolve(row, accuracy=0.5) for row in found.k_shot)
    found = evolve(found, k_shot=poor, astray=tuple(Astray(name, "b") for name in names))
    said = [a for a in advice(found, [], manifest(30, 84), config()) if "one other" in a.why]
    assert len(said) == bool(names)
    for each in said:
        assert [name for name in names if f"{name} (b)" in each.why] == names[:5]
        assert ("more" in each.why) == (count > 5)


@settings(max_examples=30)
@given(results, st.sampled_from([0.5, 1.0]), st.sampled_from(["triplet", "prototypical"]))
def test_a_margin_is_advised_where_none_was_reached_and_nothing_learned(
    found: RunResults, above: float, loss: str
) -> None:
    row = telling_row(found.k_shot)
    given_ = topics(found, [{"above_zero": above}], manifest(30, 84), config(loss=loss))
    due = row.accuracy <= row.floor and above == 1 and loss == "triplet" and row.accuracy < GOOD
    assert ("a-margin-that-fits" in given_) == due


@settings(max_examples=20)
@given(results, st.booleans())
def test_an_adapter_is_advised_of_a_network_that_it_can_train(
    found: RunResults, frozen: bool
) -> None:
    found = evolve(found, k_shot=tuple(evolve(row, accuracy=0.5) for row in found.k_shot))
    tree = config() | {"backbone": {"name": "conv4", "frozen": frozen}}
    due = telling_row(found.k_shot).k_shot >= 5 and not frozen
    assert ("an-adapter" in topics(found, [], manifest(30, 84), tree)) == due


@settings(max_examples=30)
@given(results, st.integers(0, 3))
def test_only_labels_of_files_may_be_mixed_up(found: RunResults, count: int) -> None:
    """Not those of images that a program drew."""
    found = evolve(
        found,
        k_shot=tuple(evolve(row, accuracy=0.6, per_class={"a": 0.0}) for row in found.k_shot),
        astray=tuple(Astray(f"a/{i}", "b") for i in range(count)),
    )
    due = count > 0 or telling_row(found.k_shot).n_way > 3
    for of in ("files_sha256", "pixels_sha256"):
        given_ = topics(found, [], manifest(30, 84, of), config())
        assert ("mixed-up-labels" in given_) == (due and of == "files_sha256")
