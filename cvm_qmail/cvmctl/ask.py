"""cvmctl ask: one question, printed as cvm-testclient prints it.

Source: cvm-testclient(8); cvm 0.97 (cvm-testclient.c, v2client.c, errors.c).
"""

from __future__ import annotations

import os

import click

from cvm_qmail.escape import escape_text
from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Code, Fact

_MEANINGS: dict[int, str] = {
    Code.GENERAL: "General error",
    Code.BAD_CLIDATA: "Invalid data from client",
    Code.BAD_MODDATA: "Invalid data from module",
    Code.IO: "Input/Output error",
    Code.NOFACT: "Fact missing in data from client",
    Code.CONFIG: "Configuration error",
    Code.NOCRED: "Credential missing in data from module",
    Code.PERMFAIL: "Credentials rejected",
}

_LINES = (
    ("user name:        ", Fact.USERNAME),
    ("user ID:          ", Fact.USERID),
    ("group ID:         ", Fact.GROUPID),
    ("real name:        ", Fact.REALNAME),
    ("directory:        ", Fact.DIRECTORY),
    ("shell:            ", Fact.SHELL),
    ("group name:       ", Fact.GROUPNAME),
    ("system user name: ", Fact.SYS_USERNAME),
    ("system directory: ", Fact.SYS_DIRECTORY),
    ("domain:           ", Fact.DOMAIN),
    ("mailbox path:     ", Fact.MAILBOX),
)
_SECONDS = click.FloatRange(0.001, 86400)
_REQUIRED = (Fact.USERNAME, Fact.USERID, Fact.GROUPID, Fact.DIRECTORY)


def split(account: str, domain: str, characters: str) -> tuple[bytes, bytes | None]:
    """Account and domain as the C client sends them: an account splits at the last of `characters` in it."""
    if not domain:
        at = max(map(account.rfind, characters), default=-1)
        if at >= 0:
            account, domain = account[:at], account[at + 1 :]
    return os.fsencode(account), os.fsencode(domain) if domain else None


@click.command()
@click.argument("module")
@click.argument("account")
@click.argument("domain", default="")
@click.option(
    "--timeout", type=_SECONDS, default=client.TIMEOUT, show_default=True, help="Seconds to wait for the answer."
)
@click.option("--v1", is_flag=True, help="Speak version 1 of the protocol.")
@click.option("--password", "ask_password", is_flag=True, help="Ask for a password, and send it.")
@click.pass_context
def ask(
    context: click.Context, /, module: str, account: str, domain: str, *, timeout: float, v1: bool, ask_password: bool
) -> None:
    """Ask MODULE about ACCOUNT at DOMAIN, and print the facts.

    Without DOMAIN, ACCOUNT is split at its last @ (or another of the characters in
    CVM_ACCOUNT_SPLIT_CHARS); without one in it, no domain is sent.  The secret, if the module
    requires one, is taken from CVM_LOOKUP_SECRET in the environment.

    The exit status is the response code: 0 the address exists; 100 it does not, or is out of scope;
    anything else could not be determined (4: no answer).
    """
    secret = os.environ.get("CVM_LOOKUP_SECRET") or None
    password = click.prompt("Password", hide_input=True) if ask_password else None
    try:
        response = client.ask(
            module,
            *split(account, domain, os.environ.get("CVM_ACCOUNT_SPLIT_CHARS", "@")),
            version=1 if v1 else 2,
            timeout=timeout,
            secret=None if secret is None else os.fsencode(secret),
            password=None if password is None else os.fsencode(password),
        )
    except client.NoAnswer as error:
        click.echo(f"cvmctl: {error}", err=True)
        context.exit(_fail(Code.IO))
    except (ValueError, packets.Malformed) as bad:
        raise click.UsageError(str(bad)) from None
    status = _print(response)
    if status == Code.NOCRED:  # what cvm-testclient leaves to be guessed
        hint = (
            "CVM_LOOKUP_SECRET is not the module's secret" if secret else "set CVM_LOOKUP_SECRET to the module's secret"
        )
        click.echo(f"cvmctl: the module requires a secret or a password: {hint}", err=True)
    context.exit(status)


def _print(response: packets.Response) -> int:
    """Prints a response; returns the exit status."""
    facts = dict(reversed(response.facts))
    if response.code:
        status = _fail(response.code)
        if Fact.OUTOFSCOPE in facts:
            click.echo(f"out of scope:     {_text(facts[Fact.OUTOFSCOPE])}")
        return status
    if any(fact not in facts for fact in _REQUIRED):
        return _fail(Code.BAD_MODDATA)
    for label, fact in _LINES:
        click.echo(label + (_text(facts[fact]) if fact in facts else "(null)"))
    for number, value in response.facts:
        if number == Fact.SUPP_GROUPID:
            click.echo(f"supp. group ID:   {_text(value)}")
    return 0


def _fail(code: int) -> int:
    click.echo(f"cvmctl: Authentication failed, error #{code} ({_MEANINGS.get(code, 'Unknown error code')})", err=True)
    return code


def _text(value: bytes) -> str:
    return escape_text(value.decode("utf-8", "surrogateescape"))
