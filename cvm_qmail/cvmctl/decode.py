"""cvmctl decode: a captured packet, field by field.

Invariants: no password or secret is shown, only how long it is; nor is a value whose type has no name, which
may be one, nor anything behind the place where the packet is damaged.

Exit status: 0 the packet is sound; 1 it is damaged.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import click

from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import read
from cvm_qmail.cvmctl.ui.output import PERMANENT, SOME, TEMPORARY, Failure, counted, text
from cvm_qmail.protocols.cvm.packets import Code, Credential

try:
    from cvm_qmail.protocols.cvm.dissect import Part, Walk, walk_request, walk_response
except ImportError as missing:
    raise Failure(
        f"decode needs the package {missing.name}: install it with  pip install 'cvm-qmail[tool]'", TEMPORARY
    ) from None

READ_LIMIT = 1 << 16
"""Bytes that are read: a packet in hexadecimal text is less."""

_HEX = re.compile(rb"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[\s:,]*)+")
_BETWEEN = re.compile(rb"0x|\\x|[\s:,]")

_SHOWN = {int(Credential.ACCOUNT), int(Credential.DOMAIN), int(Credential.CHALLENGE), int(Credential.RESPONSE_TYPE)}
"""Credentials that hold no secret."""


@click.command()
@click.argument("packet", metavar="[HEX|FILE|-]", type=click.Path(allow_dash=True), nargs=-1)
@click.option("--request/--response", "is_request", default=None, help="The kind of packet.  [default: the valid one]")
@click.option("--v1", is_flag=True, help="The response answers a request of version 1.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_context
def decode(
    context: click.Context, /, packet: tuple[str, ...], *, is_request: bool | None, v1: bool, as_json: bool
) -> None:
    """Show a captured CVM request or response, field by field.

    The packet is given in hexadecimal digits (blanks, colons, commas, 0x and \\x between them are ignored),
    or in a file, or on standard input (-), where it may also be raw bytes.  Versions 1 and 2 are
    understood.  Only the length of a password or a secret is shown.

    \b
      cvmctl decode 0200 01036a6f65 020b6578616d706c652e6f7267 00
      cvmctl decode 64:00:10:01:30:00
      cvmctl decode captured.bin
      cvm-qmail < request | cvmctl decode --response

    Without --request or --response, a packet that could be either is shown as a request.  For a damaged
    packet, the offset of the damage is shown, and what was expected there.

    The exit status is 1 if the packet is damaged, 100 if there is none.
    """  # noqa: D301  click knows the control character, not the backslash
    data = _bytes_of(" ".join(packet) or "-")
    taken = _taken(data, is_request, v1=v1)
    if as_json:
        output.json_line(_as_object(data, taken))
    else:
        _print(data, taken)
    context.exit(0 if taken.walk.damage is None else SOME)


class Taken(NamedTuple):
    """What a packet was taken for."""

    request: bool
    version: int
    walk: Walk


def _bytes_of(argument: str) -> bytes:
    """The packet that the argument is, or names."""
    given = os.fsencode(argument)
    if _HEX.fullmatch(given.strip()):
        return bytes.fromhex(_BETWEEN.sub(b"", given).decode())
    try:
        data = read(argument, READ_LIMIT)
    except FileNotFoundError:
        raise Failure(f"{argument}: neither hexadecimal digits in pairs nor a file", PERMANENT) from None
    if _HEX.fullmatch(data.strip()):
        return bytes.fromhex(_BETWEEN.sub(b"", data).decode())
    if not data:
        raise Failure(f"{argument}: empty, expected a packet", PERMANENT)
    return data


def _taken(data: bytes, is_request: bool | None, *, v1: bool) -> Taken:
    """What it is sound as; if nothing, what it begins as."""
    ways = []
    if is_request is not False and (is_request or data[0] in (1, 2)):
        ways.append(Taken(True, data[0], walk_request(data)))
    if not is_request:
        ways += [Taken(False, version, walk_response(data, version)) for version in ((1,) if v1 else (2, 1))]
    return next((way for way in ways if way.walk.damage is None), ways[0])


def _name(part: Part, *, request: bool) -> str:
    """What a person calls it."""
    if part.name == "credential":
        return "PASSWORD or SECRET"  # which of them, the server's environment tells
    if part.type is None:
        return part.name
    return f"{part.name} ({part.type})" if part.name else f"{'credential' if request else 'fact'} {part.type}"


def _hidden(part: Part, *, request: bool) -> bool:
    if part.type is None:
        return part.name == "credential"
    return part.type not in _SHOWN if request else not part.name


def _value(part: Part) -> str:
    if part.name in ("version", "code"):
        number = part.data[0]
        return f"{number} {Code(number).name}" if part.name == "code" and number in set(Code) else str(number)
    if part.name == "nonce":
        return part.data.hex()
    return "" if part.name == "end" else text(part.data)


def _print(data: bytes, taken: Taken) -> None:
    request, version, walk = taken
    output.line(f"{'request' if request else 'response'}, version {version}, {counted(len(data), 'byte')}", "title")
    rows = []
    for part in walk.parts:
        length = "" if part.name in ("version", "code", "end") else str(len(part.data))
        value = "(not shown)" if _hidden(part, request=request) else _value(part)
        rows.append((str(part.offset), _name(part, request=request), length, value))
    output.table(("offset", "field", "bytes", "value"), rows, right=("offset", "bytes"))
    if walk.damage is not None:
        offset, what = walk.damage
        output.line(
            f"damaged at offset {offset}: {what} ({counted(len(data) - offset, 'byte')} from there on not shown)", "no"
        )


def _as_object(data: bytes, taken: Taken) -> dict[str, object]:
    request, version, walk = taken
    fields = [
        {
            "offset": part.offset,
            "size": part.size,
            "name": part.name or None,
            "type": part.type,
            "bytes": len(part.data),
            "value": None if _hidden(part, request=request) else _value(part),
        }
        for part in walk.parts
    ]
    return {
        "kind": "request" if request else "response",
        "version": version,
        "bytes": len(data),
        "fields": fields,
        "damage": None if walk.damage is None else walk.damage._asdict(),
    }
