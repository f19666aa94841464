"""How rows are cut into passes."""

from hypothesis import given
from hypothesis import strategies as st

from surefoot.ops import microbatches

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(lengths, st.integers(1, 5))
def test_every_row_is_in_exactly_one_pass_of_at_most_max_rows(lengths, rows):
    groups = microbatches(lengths, max_rows=rows)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) <= rows for group in groups)
    assert len(groups) == -(-len(lengths) // rows)


@given(lengths, st.integers(1, 60))
def test_no_pass_holds_more_padded_tokens_than_its_budget_unless_a_single_row_does(lengths, budget):
    groups = microbatches(lengths, max_tokens=budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget for group in groups)


def test_rows_of_like_length_go_together_longest_first():
    assert microbatches([2, 9, 3, 8], max_rows=2) == [[1, 3], [2, 0]]
    assert microbatches([2, 9, 3, 8], max_tokens=18) == [[1, 3], [2, 0]]
    assert microbatches([2, 9, 3, 8]) == [[1, 3, 2, 0]]
