"""What differs between what is there and what is to be there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cvm_directory.publishing.publication import Address
from cvm_directory.publishing.publisher import changes

ROWS = st.dictionaries(st.text("abc*-", max_size=3), st.sampled_from("+-?")).map(
    lambda rows: [Address(*row) for row in sorted(rows.items())]
)


@given(ROWS, ROWS)
def test_what_is_there_with_the_changes_is_what_is_to_be_there(there: list[Address], now: list[Address]) -> None:
    made = list(changes(there, now))
    gone = [old for old, _ in made if old is not None]
    new = [new for _, new in made if new is not None]
    assert sorted({*there} - {*gone} | {*new}) == now
    assert {*gone} <= {*there}
    assert not {*gone} & {*now}
    assert not {*new} & {*there}
