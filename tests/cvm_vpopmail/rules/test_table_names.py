"""The name of the table of one domain's accounts."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Unavailable
from cvm_vpopmail.dialects import MYSQL, PGSQL, Dialect


@pytest.mark.parametrize(
    ("domain", "dialect", "table"),
    [
        (b"example.com", MYSQL, "example_com"),
        (b"a-b.c-d.example", MYSQL, "a_b_c_d_example"),
        (b"Example.COM", MYSQL, "Example_COM"),
        (b"Example.COM", PGSQL, "example_com"),
        (b"a" * 70 + b".example", PGSQL, "a" * 63),
        (b"1und1.example", MYSQL, "1und1_example"),
    ],
)
def test_a_table_is_named_by_its_domain(domain: bytes, dialect: Dialect, table: str) -> None:
    assert dialect.table_of(domain) == table


def test_mysql_has_no_table_with_a_name_that_is_too_long() -> None:
    with pytest.raises(Unavailable, match="database-tables"):
        MYSQL.table_of(b"a" * 65)
