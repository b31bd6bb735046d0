"""The name of the table that holds one domain's accounts, where each domain has a table of its own.

    example-a.com       example_a_com

Invariants: what comes back is letters, digits and underscores, so that it can stand in a statement as it is.

Source: vpopmail.c (vauth_munge_domain); vpgsql.c does not quote it, so PostgreSQL folds and cuts it.
"""

from __future__ import annotations

import re

from cvm_qmail.answer import Unavailable

_NAME = re.compile(rb"[A-Za-z0-9_]{1,64}")

_PGSQL_LIMIT = 63
"""Bytes of a name in PostgreSQL; it cuts off what is more."""


def in_mysql(domain: bytes) -> str:
    """The table in MySQL or MariaDB.  Raises `Unavailable` for a domain that can have none."""
    return _checked(_munged(domain), domain)


def in_pgsql(domain: bytes) -> str:
    """The table in PostgreSQL.  Raises `Unavailable` for a domain that can have none."""
    return _checked(_munged(domain).lower()[:_PGSQL_LIMIT], domain)


def _munged(domain: bytes) -> bytes:
    return domain.replace(b".", b"_").replace(b"-", b"_")


def _checked(name: bytes, domain: bytes) -> str:
    if not _NAME.fullmatch(name):
        detail = "the domain's name, with _ for . and -, cannot be the name of a table: letters, digits, at most 64"
        raise Unavailable("database-tables", detail, domain)
    return name.decode("ascii")
