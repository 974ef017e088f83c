"""Answers beside the truth are counted as by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.deploy.labelled import tally, truth_of

names = st.sampled_from(["cup", "key", "owl"])


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(["cup", "key", "owl", "moth"]), names | st.none())),
    st.sets(names, min_size=1),
)
def test_a_tally_is_what_counting_one_by_one_gives(
    answers: list[tuple[str, str | None]], classes: set[str]
) -> None:
    answers = [(truth, label if label in classes else None) for truth, label in answers]
    found = tally(answers, sorted(classes))

    def count(of: str | None = None) -> tuple[int, int, int]:
        mine = [(t, a) for t, a in answers if of in (None, t)]
        right = [(t, a) for t, a in mine if t == a or (t not in classes and a is None)]
        unknown = [(t, a) for t, a in mine if t in classes and a is None]
        return len(mine), len(right), len(unknown)

    assert (found.asked, found.right, found.unknown) == count()
    assert {*found.per_class} == {truth for truth, _ in answers}
    assert {*found.not_enrolled} == {*found.per_class} - classes
    for name, each in found.per_class.items():
        assert (each.asked, each.right, each.unknown) == count(name)
    taken = sum(times for _, _, times in found.confusions)
    assert taken == found.asked - found.right - found.unknown
    for truth, label, times in found.confusions:
        assert times == answers.count((truth, label))
        assert truth != label
    times = [each[2] for each in found.confusions]
    assert times == sorted(times, reverse=True)


def test_the_truth_is_the_folder_of_an_image() -> None:
    assert truth_of("photos/owl/1.jpg") == "owl"
    assert truth_of("/photos/große Schüssel/1.jpg") == "große Schüssel"


def test_the_truth_is_the_longest_end_of_the_path_that_is_a_class() -> None:
    assert truth_of("a/birds/owl/1.jpg", {"owl", "birds/owl", "wren"}) == "birds/owl"
    assert truth_of("a/birds/owl/1.jpg", {"owl"}) == truth_of("a/birds/owl/1.jpg", {"x"}) == "owl"


def test_the_truth_is_a_class_in_whatever_form_its_folder_is_named() -> None:
    for name in ("e\u0301", " \u00e9"):
        assert truth_of(f"a/{name}/1.jpg", {"\u00e9"}) == truth_of(f"a/{name}/1.jpg") == "\u00e9"
