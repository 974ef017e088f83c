"""Tables of figures leave out what is the same in all rows, and nothing else."""

from attrs import evolve
from figures import rows
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.core.figures import Compared, KShotRow
from fewshot.reports.run_page import comparison_table, table


@settings(max_examples=20)
@given(rows(), st.lists(st.sampled_from(["none", "mixed"]), min_size=1, max_size=4))
def test_a_comparison_names_groups_where_rows_differ_in_them(row: KShotRow, groups: list[str]):
    compared = [Compared(f"runs/{i}", evolve(row, groups=of)) for i, of in enumerate(groups)]
    header, cells = comparison_table(compared)
    assert ("groups" in header) == ("way" in header) == (len({*groups}) > 1)
    assert all(len(line) == len(header) for line in cells)
    assert [line[header.index("run")] for line in cells] == [each.run for each in compared]
    if len({*groups}) > 1:
        assert [line[header.index("groups")] for line in cells] == groups


@settings(max_examples=20)
@given(st.lists(st.tuples(rows(), st.none() | st.floats(0, 1)), min_size=1, max_size=4))
def test_a_table_has_the_untrained_network_where_a_row_has_it(found: list):
    header, cells = table([evolve(row, untrained=before) for row, before in found])
    assert ("untrained" in header) == any(before is not None for _, before in found)
    assert all(len(line) == len(header) for line in cells)
