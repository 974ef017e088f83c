"""Figures of runs that never were."""

from hypothesis import assume
from hypothesis import strategies as st

from fewshot.core.figures import KShotRow, RunResults, Speed


@st.composite
def rows(draw: st.DrawFn) -> KShotRow:
    classes = [f"class {i}" for i in range(draw(st.integers(2, 5)))]
    counts = st.integers(0, 9)
    confusion = {
        truth: {answer: n for answer in classes if (n := draw(counts))} for truth in classes
    }
    confusion = {truth: answered for truth, answered in confusion.items() if answered}
    assume(confusion)
    accuracy = draw(st.floats(0, 1))
    return KShotRow(
        k_shot=draw(st.integers(0, 20)), n_way=len(classes), accuracy=accuracy,
        ci95=(accuracy / 2, 1.0), ci95_classes=(0.0, 1.0), floor=draw(st.floats(0, 1)),
        floor_ci95=(0.0, 1.0), untrained=None, untrained_ci95=None, groups="none", episodes=2,
        queries=4, per_class=dict.fromkeys(confusion, 0.5), per_episode=(accuracy, accuracy),
        confusion=confusion, digest="",
        protocol=draw(st.sampled_from(["episodes", "leave-one-out"])),
    )  # fmt: skip


results = st.lists(rows(), min_size=1, max_size=3).map(
    lambda found: RunResults(tuple(found), None, Speed(1.0, 1.0, 1.0, 1.0))
)
