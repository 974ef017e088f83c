"""The best weights are kept, whatever ends training."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainings import LAYOUTS, Linear, Script, Weights, equal, network, state, train

scripts = st.lists(st.sampled_from([0.1, 0.4, 0.4, 0.7, 0.9]), min_size=1, max_size=7)


def expected_end(scores: Sequence[float], patience: int) -> tuple[int, int, bool]:
    """Index of the best score, how many validations there are, whether patience ran out."""
    best, stale = 0, 0
    for i, score in enumerate(scores[1:], start=1):
        best, stale = (i, 0) if score > scores[best] else (best, stale + 1)
        if patience and stale == patience:
            return best, i + 1, True
    return best, len(scores), False


@given(scores=scripts, patience=st.integers(0, 3), every=st.integers(1, 2))
def test_the_best_weights_are_kept_and_patience_ends_training(
    scores: list[float], patience: int, every: int
) -> None:
    net = Linear(256, 3)
    script, told, kept = Script(net, scores), [], []
    history = train(
        net,
        steps=every * len(scores),
        validate_every=every,
        patience=patience,
        validate=script,
        on_record=told.append,
        on_best=lambda module: kept.append(state(module)["backbone.weight"]),
    )
    best, validations, impatient = expected_end(scores, patience)
    assert equal(state(net), script.states[best])
    assert len(script.states) == validations
    assert history.stopped == ("patience" if impatient else "steps")
    assert history.steps == every * validations
    assert history.best_step == every * (best + 1)
    assert history.best_score == scores[best]
    assert [record["score"] for record in history.records] == scores[:validations]
    assert told == history.records
    assert np.array_equal(kept[-1], script.states[best]["weight"])
    bests = [s for i, s in enumerate(scores[:validations]) if s > max(scores[:i], default=-1)]
    assert len(kept) == len(bests)


def test_the_best_running_statistics_come_back_with_the_best_weights() -> None:
    net = network()
    script = Script(net, [0.9, 0.5, 0.4])
    train(net, steps=3, validate_every=1, validate=script)
    assert equal(state(net), script.states[0])
    assert not np.array_equal(
        script.states[0]["layers.layers.1.running_mean"],
        script.states[2]["layers.layers.1.running_mean"],
    )
    assert not any(part.training for part in net.modules())


def test_without_validation_the_last_weights_are_kept() -> None:
    seen: list[Weights] = []
    net = Linear(256, 3)
    train(net, steps=5, validate_every=2, progress=lambda *_: seen.append(state(net)))
    assert len(seen) == 5
    assert equal(state(net), seen[-1])
    assert not equal(seen[-1], seen[-2])


# --------------------------------------------------------------------------------- interrupts


def test_an_interrupt_in_validation_keeps_the_best_weights_so_far() -> None:
    net = Linear(256, 3)
    script = Script(net, [0.2, 0.8, 0.3], end=KeyboardInterrupt())
    history = train(net, steps=20, validate_every=1, validate=script)
    assert history.stopped == "interrupted"
    assert history.best_score == 0.8
    assert equal(state(net), script.states[1])
    assert not equal(script.states[1], script.states[3])
    assert not any(part.training for part in net.modules())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupt_between_steps_keeps_the_best_weights_so_far(layout: str) -> None:
    net = network()
    script = Script(net, [0.8, 0.3])

    def progress(step: int, steps: int, note: str) -> None:
        if step == 5:
            raise KeyboardInterrupt

    history = train(net, layout, steps=20, validate_every=2, validate=script, progress=progress)
    assert history.stopped == "interrupted"
    assert history.steps == 5
    assert equal(state(net), script.states[0])


def test_an_interrupt_before_the_first_validation_keeps_what_there_is() -> None:
    net, seen = Linear(256, 3), []
    before = state(net)

    def progress(step: int, steps: int, note: str) -> None:
        seen.append(state(net))
        if step == 2:
            raise KeyboardInterrupt

    history = train(net, steps=20, validate=Script(net, []), progress=progress)
    assert history.stopped == "interrupted"
    assert equal(state(net), seen[-1])
    assert not equal(state(net), before)


def test_other_errors_are_not_taken_for_an_interrupt() -> None:
    net = Linear(256, 3)
    with pytest.raises(ZeroDivisionError):
        train(net, steps=2, validate_every=1, validate=Script(net, [], end=ZeroDivisionError()))
