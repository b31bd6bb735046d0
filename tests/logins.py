"""The systems of the vpopmail corpus as plain tables, and what vchkpw said to each login.

No server and no file but the corpus itself: the rules of a login with dicts, as authenticate puts them
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hosts import CORPUS, as_bytes, load

from cvm_qmail.answer import Recipient
from cvm_qmail.plugin import Challenge, Password, Proof
from cvm_vpopmail.accounts import Account
from cvm_vpopmail.rules import limits, login
from cvm_vpopmail.vpasswd import parse

WORDS = {0: "ok", 1: "forbidden", 3: "wrong", 13: "wrong", 15: "wrong", 20: "invalid"}
"""Exit codes of vchkpw; 3 is also an account that is not there."""


class Case(NamedTuple):
    """One login, and what vchkpw said."""

    login: bytes
    proof: Proof
    service: str
    domain: bytes | None
    """VPOPMAIL_DOMAIN."""
    said: str
    about: str


class System(NamedTuple):
    """A vpopmail as dicts."""

    domains: dict[bytes, str]
    """Directories by name."""
    accounts: dict[tuple[str, bytes], Account]
    limits: dict[str, limits.Limits]
    default_limits: limits.Limits | None
    default_domain: bytes
    cases: list[Case]

    def says(self, case: Case) -> str:
        """What we say to a login."""
        user, name = login.address(Recipient(case.login, None))
        if not login.valid(user, name):
            return "invalid"
        directory = self.domains.get(name or (self.default_domain if case.domain is None else case.domain))
        account = self.accounts.get((directory or "", user))
        if account is None or not account.secret.verify(case.proof, case.service):
            return "wrong"
        more = login.limit_flags(account.flags, self.limits.get(directory or "", self.default_limits))
        return "forbidden" if login.forbidden(case.service, account.flags | more) else "ok"


def system(name: str) -> System:
    """A system of the corpus."""
    data = load(CORPUS / f"vpopmail/{name}.json")
    texts = {file["path"]: as_bytes(file["text"]) for file in data["files"] if "text" in file}
    vpopmail = data["vpopmail_dir"]
    default = texts.get(f"{vpopmail}/etc/vlimits.default")
    return System(
        dict(_domains(data)),
        dict(_accounts(data)),
        {
            path.removesuffix("/.qmailadmin-limits"): limits.parse(text)
            for path, text in texts.items()
            if path.endswith("/.qmailadmin-limits")
        },
        None if default is None else limits.parse(default),
        texts.get(f"{vpopmail}/etc/defaultdomain", b"").strip(),
        list(map(_case, data["auth_cases"])),
    )


def _domains(data: Mapping[str, Any]) -> Iterator[tuple[bytes, str]]:
    for key, value in data["users_cdb_records"]:
        if key.startswith("!") and key.endswith("-"):
            yield as_bytes(key[1:-1]), value.split("\0")[3]


def _accounts(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, bytes], Account]]:
    for file in data["files"]:
        if file["path"].endswith("/vpasswd.cdb"):
            directory = file["path"].removesuffix("/vpasswd.cdb")
            for name, value in file["records"]:
                account = parse(as_bytes(name), as_bytes(value), clear=data["build"]["clear_passwd"])
                yield (directory, account.name), account


def _case(case: Mapping[str, Any]) -> Case:
    proof: Proof = Password(case["password"].encode())
    if "challenge" in case:
        kind = b"APOP" if case["service"] in ("pop3", "webmail") else b"CRAM-MD5"
        proof = Challenge(case["challenge"].encode(), case["response"].encode(), kind)
    domain = case.get("env", {}).get("VPOPMAIL_DOMAIN")
    return Case(
        case["login"].encode(),
        proof,
        case["service"],
        None if domain is None else domain.encode(),
        WORDS[case["details"]["vchkpw_exit"]],
        case["details"].get("about", ""),
    )
