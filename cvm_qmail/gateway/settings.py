"""From the environment to `Settings` of the gateway: each variable is declared once, read once, checked at start.

Invariants: nothing else of the gateway reads the environment.  A malformed value is a `BadSetting` at start.  No secret
is in the repr of the settings, nor in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cvm_qmail.protocols.cvm.lookup import SECRET_LIMIT
from cvm_qmail.protocols.routes import cvm_module
from cvm_qmail.protocols.socketmap import OUT_OF_SCOPE
from cvm_qmail.settings import SETTINGS as DAEMON
from cvm_qmail.settings import BadSetting, Invalid, Setting, choice, flag, number, read, seconds, words

_DAY = 86_400_000


class Secret:
    """Bytes that no log, trace or exception shows."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return "Secret(...)" if self.value else "Secret(b'')"


class ProbeLimit(NamedTuple):
    """How many addresses that do not exist a client may ask about, in how many seconds."""

    addresses: int
    seconds: int


def _secret(text: str | None) -> Secret:
    return Secret(os.fsencode(text or ""))


def _token(text: str | None) -> Secret:
    if text and not re.fullmatch("[!-~](?:[ -~]*[!-~])?", text):  # it is part of a header's line
        raise Invalid("printable ASCII characters, without a blank or a newline at either end")
    return Secret((text or "").encode("ascii"))


def _module(text: str | None) -> str | None:
    return cvm_module(text) if text else None


def _path(text: str | None) -> str | None:
    if text and not text.startswith("/"):
        raise Invalid("an absolute path")
    return text or None


def _probe_limit(text: str | None) -> ProbeLimit | None:
    if not text:
        return None
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not int(found[1]) or not int(found[2]):
        raise Invalid("N/SECONDS, two whole numbers from 1, like 20/3600")
    return ProbeLimit(int(found[1]), int(found[2]))


SETTINGS: dict[str, Setting[Any]] = {
    "module": Setting(
        "CVM_GATEWAY_MODULE", "unset", _module, "the CVM module that is asked: cvm-local:PATH or cvm-udp:HOST:PORT"
    ),
    "hedge": Setting(
        "CVM_GATEWAY_HEDGE",
        "1000",
        seconds(1000, 0, 3_600_000),
        "time without an answer after which the next module of a route is asked too; 0: only after a failure",
        "milliseconds",
    ),
    "https_token": Setting(
        "CVM_GATEWAY_HTTPS_TOKEN",
        "unset",
        _token,
        "the bearer token for the gateways that routes name by https",
        secret=True,
    ),
    "https_certificate": Setting(
        "CVM_GATEWAY_HTTPS_CERTIFICATE", "unset", _path, "a PEM file with the client certificate for them and its key"
    ),
    "https_ca": Setting(
        "CVM_GATEWAY_HTTPS_CA", "unset", _path, "a PEM file of certificates to trust there, in place of the system's"
    ),
    "timeout": Setting(
        "CVM_GATEWAY_TIMEOUT",
        "10000",
        seconds(10_000, 1, 3_600_000),
        "time for the module to answer; after that the outcome is a temporary failure",
        "milliseconds",
    ),
    "connections": Setting(
        "CVM_GATEWAY_CONNECTIONS", "1000", number(1000, 1, 1_000_000), "connections of clients at a time"
    ),
    "waiting": Setting(
        "CVM_GATEWAY_WAITING",
        "500",
        number(500, 1, 100_000),
        "questions that wait for a module at a time; any more are temporary failures",
    ),
    "idle": Setting(
        "CVM_GATEWAY_IDLE",
        "120000",
        seconds(120_000, 1, _DAY),
        "time for a client to send a whole request; after that its connection is closed",
        "milliseconds",
    ),
    "probe_limit": Setting(
        "CVM_GATEWAY_PROBE_LIMIT",
        "unset",
        _probe_limit,
        "N/SECONDS: a client that asked about more than N addresses that do not exist gets temporary failures",
    ),
    "deny_all": Setting(
        "CVM_GATEWAY_DENY_ALL",
        "0",
        flag(),
        "1: accept every recipient, and reject the message at DATA if one of them does not exist (policy)",
    ),
    "senders": Setting(
        "CVM_GATEWAY_SENDERS",
        "unset",
        lambda text: frozenset(word.lower() for word in words(text)),
        "senders whose recipients are not checked: addresses, @DOMAIN, or <> for the null sender",
    ),
    "reject_chars": Setting(
        "CVM_GATEWAY_REJECT_CHARS",
        "unset",
        lambda text: os.fsencode(text or ""),
        "characters that the local part of an address may not contain",
    ),
    "out_of_scope": Setting(
        "CVM_GATEWAY_OUT_OF_SCOPE",
        "notfound",
        choice(*OUT_OF_SCOPE),
        "the answer of socketmap for an address that is out of scope: notfound, ok or temporary",
    ),
    "token": Setting(
        "CVM_GATEWAY_TOKEN",
        "unset",
        _token,
        "the bearer token that http listeners require from other hosts",
        secret=True,
    ),
    "logged": Setting(
        "CVM_GATEWAY_LOG", "all", choice("all", "rejected", "none"), "requests that are logged: all, rejected or none"
    ),
}
"""By the field of `Settings` that has the value."""

SHARED: dict[str, Setting[Any]] = {
    "secret": DAEMON["lookup_secret"]._replace(parse=_secret),
    "log": DAEMON["log"],
    "stats": DAEMON["stats"],
    "socket_mode": DAEMON["socket_mode"],
    "socket_owner": DAEMON["socket_owner"],
    "socket_group": DAEMON["socket_group"],
    "sandbox": DAEMON["sandbox"],
}
"""Settings that mean the same as for the daemon."""


class Settings(NamedTuple):
    """The settings of the gateway."""

    module: str | None
    """None: routes name the modules."""
    hedge: float
    """Seconds."""
    https_token: Secret
    https_certificate: str | None
    https_ca: str | None
    timeout: float
    """Seconds."""
    connections: int
    waiting: int
    idle: float
    """Seconds."""
    probe_limit: ProbeLimit | None
    deny_all: bool
    senders: frozenset[bytes]
    """In lower case."""
    reject_chars: bytes
    out_of_scope: str
    token: Secret
    logged: str
    secret: Secret
    log: str
    stats: str | None
    """The daemon's; None: beside the socket of the module."""
    socket_mode: int
    socket_owner: str | None
    socket_group: str | None
    sandbox: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Raises `BadSetting`."""
        env = os.environ if environment is None else environment
        settings = cls(**read(SETTINGS | SHARED, env))
        if len(settings.secret.value) > SECRET_LIMIT:
            found = f"{len(settings.secret.value)} bytes"
            raise BadSetting("CVM_LOOKUP_SECRET", found, f"at most {SECRET_LIMIT}, which a CVM packet can hold")
        return settings
