"""The tables of the directory.

cvm_domain      a row for each domain: who published it, when, and what becomes of addresses that are not listed
cvm_address     a row for each address, and for each pattern of addresses
"""

from __future__ import annotations

from cvm_vpopmail.dialects import MYSQL, PGSQL

_DOMAIN = """\
CREATE TABLE IF NOT EXISTS cvm_domain (
  domain {short} NOT NULL PRIMARY KEY,
  scope VARCHAR(8) NOT NULL,
  percenthack VARCHAR(1) NOT NULL,
  endings {long} NOT NULL,
  addresses INTEGER NOT NULL,
  digest VARCHAR(32) NOT NULL,
  host {short} NOT NULL,
  published {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
  changed {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
){tail};
"""
_ADDRESS = """\
CREATE TABLE IF NOT EXISTS cvm_address (
  domain {short} NOT NULL,
  local {long} NOT NULL,
  verdict VARCHAR(1) NOT NULL,
  PRIMARY KEY (domain, local)
){tail};
"""

_KINDS = {
    MYSQL.name: {
        "short": "VARCHAR(255)",
        "long": "VARCHAR(1024)",
        "time": "TIMESTAMP",
        "tail": " ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET ascii COLLATE ascii_bin",
    },
    PGSQL.name: {
        "short": 'VARCHAR(255) COLLATE "C"',
        "long": 'VARCHAR(1024) COLLATE "C"',
        "time": "TIMESTAMPTZ",
        "tail": "",
    },
}

LONGEST_DOMAIN, LONGEST_LOCAL = 255, 1024
"""Characters, as `notation` writes names."""


def schema(dialect: str) -> list[str]:
    """The statements that make the tables, unless they are there.  `dialect`: its name."""
    return [table.format(**_KINDS[dialect]) for table in (_DOMAIN, _ADDRESS)]
