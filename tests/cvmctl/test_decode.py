"""cvmctl decode: captured packets field by field, without their secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hosts import Host
from hypothesis import given
from hypothesis import strategies as st
from serving import CVM_QMAIL, environment, request

from cvm_qmail.cvmctl.decode import decode
from cvm_qmail.cvmctl.group import cvmctl
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential

CVMCTL = Path(sys.executable).with_name("cvmctl")

REQUEST = b"\2\4salt\1\3joe\2\x0bexample.org\4\6sesame\xc8\1?\0"
REQUEST_1 = b"\1joe\0example.org\0sesame\0\0"
REJECTION = b"d\0\x10\x010\0"


def decoding(*arguments: str, given: bytes = b"") -> Result:
    return CliRunner().invoke(cvmctl, ["decode", *arguments], input=given)


def test_a_request_field_by_field_with_the_offset_of_each() -> None:
    done = decoding(REQUEST.hex())
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "request, version 2, 36 bytes",
        "offset  field           bytes  value",
        "     0  version                2",
        "     1  nonce               4  73616c74",
        "     6  ACCOUNT (1)         3  joe",
        "    11  DOMAIN (2)         11  example.org",
        "    24  SECRET (4)          6  (not shown)",
        "    32  credential 200      1  (not shown)",
        "    35  end",
    ]


def test_the_third_string_of_version_1_may_be_either_secret() -> None:
    assert decoding(REQUEST_1.hex()).stdout.splitlines() == [
        "request, version 1, 25 bytes",
        "offset  field               bytes  value",
        "     0  version                    1",
        "     1  ACCOUNT (1)             3  joe",
        "     5  DOMAIN (2)             11  example.org",
        "    17  PASSWORD or SECRET      6  (not shown)",
        "    24  end",
    ]


def test_a_response_with_the_name_of_its_code() -> None:
    assert decoding(REJECTION.hex()).stdout.splitlines() == [
        "response, version 2, 6 bytes",
        "offset  field            bytes  value",
        "     0  code                    100 PERMFAIL",
        "     1  nonce                0",
        "     2  OUTOFSCOPE (16)      1  0",
        "     5  end",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [REQUEST.hex()],
        [REQUEST.hex().upper()],
        [REQUEST.hex(" ")],
        REQUEST.hex(" ", 4).split(),
        [REQUEST.hex(":")],
        ["".join(f"\\x{byte:02x}" for byte in REQUEST)],
        [", ".join(f"0x{byte:02x}" for byte in REQUEST)],
    ],
    ids=["digits", "capitals", "blanks", "words", "colons", "backslashes", "a list in C"],
)
def test_hexadecimal_digits_however_they_are_written(arguments: list[str]) -> None:
    assert decoding(*arguments).stdout == decoding(given=REQUEST).stdout


def test_bytes_and_digits_come_from_standard_input_and_from_a_file(tmp_path: Path) -> None:
    expected = decoding(REQUEST.hex()).stdout
    for data in (REQUEST, REQUEST.hex("\n").encode() + b"\n"):
        (tmp_path / "packet").write_bytes(data)
        assert decoding(given=data).stdout == decoding("-", given=data).stdout == expected
        assert decoding(str(tmp_path / "packet")).stdout == expected


@pytest.mark.parametrize(
    ("packet", "damage"),
    [
        (REQUEST[:20], "damaged at offset 11: DOMAIN: cut short, expected 11, found 7 (9 bytes"),
        (REQUEST[:-1], "damaged at offset 35: type: cut short, expected 1, found 0 (0 bytes"),
        (REQUEST + b"!", "damaged at offset 36: 1 bytes after the end (1 byte "),
        (REQUEST_1[:-1] + b"!", "damaged at offset 24: end: something else than the zero byte"),
        (
            b"\2\0\3\xff" + bytes(255) + b"\3\xff" + bytes(255) + b"\0",
            "offset 512: packet: 517 bytes, expected at most",
        ),
        (REJECTION[:4], "damaged at offset 2: OUTOFSCOPE: cut short, expected 1, found 0"),
        (b"\7", "damaged at offset 1: nonce: cut short"),
    ],
)
def test_damage_is_named_with_its_offset_after_all_that_is_sound(packet: bytes, damage: str) -> None:
    done = decoding(given=packet)
    assert done.exit_code == 1
    assert damage in done.stdout.splitlines()[-1]
    assert "sesame" not in done.stdout


def test_what_could_be_both_is_a_request_unless_it_is_said_to_be_a_response() -> None:
    assert decoding("020000").stdout.startswith("request, version 2")
    assert "2 BAD_CLIDATA" in decoding("--response", "020000").stdout
    assert decoding("--request", "640000").exit_code == 1


def test_a_response_of_version_1_is_distinguished_from_one_of_version_2() -> None:
    packet = packets.pack_response(1, b"", 0, [(1, b"joe"), (2, b"5001")])
    assert "USERNAME (1)      3  joe" in decoding(packet.hex()).stdout
    both = "64100000"  # version 2: a nonce of 16 bytes, cut short
    assert decoding(both).stdout == decoding("--v1", both).stdout


def test_the_same_as_json() -> None:
    done = json.loads(decoding("--json", REQUEST[:20].hex()).stdout)
    assert (done["kind"], done["version"], done["bytes"]) == ("request", 2, 20)
    assert done["fields"][-1] == {"offset": 6, "size": 5, "name": "ACCOUNT", "type": 1, "bytes": 3, "value": "joe"}
    assert done["damage"] == {"offset": 11, "what": "DOMAIN: cut short, expected 11, found 7"}
    whole = json.loads(decoding("--json", REQUEST.hex()).stdout)
    assert whole["damage"] is None
    assert {field["name"]: field["value"] for field in whole["fields"]}["SECRET"] is None


def test_what_would_do_harm_on_a_terminal_is_escaped() -> None:
    packet = packets.pack_request(packets.Request(2, b"", {1: b"\x1b[2Jjoe\n[bold]"}))
    assert r"\x1b[2Jjoe\x0a[bold]" in decoding(packet.hex()).stdout


SECRETS = (Credential.PASSWORD, Credential.SECRET, Credential.RESPONSE, 77)


@given(st.lists(st.tuples(st.sampled_from([1, 2, *SECRETS]), st.integers(1, 40)), max_size=9), st.integers(0, 400))
def test_no_secret_is_shown_wherever_the_packet_is_cut(fields: list[tuple[int, int]], cut: int) -> None:
    packet = b"\2\0" + b"".join(
        bytes([kind, length]) + (b"@" if kind in SECRETS else b"a") * length for kind, length in fields
    )
    for arguments in ([], ["--json"]):
        assert "@" not in decoding(*arguments, "--request", given=(packet + b"\0")[:cut] or b"\2").stdout


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("abc", "neither hexadecimal digits in pairs nor a file"),
        ("/", "not a regular file"),
        ("-", "empty, expected a"),
    ],
)
def test_what_is_no_packet_is_refused_in_words(argument: str, said: str) -> None:
    done = decoding(argument)
    assert (done.exit_code, said in done.stderr) == (100, True)


def test_a_fifo_does_not_hold_it_up(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in decoding(str(tmp_path / "fifo")).stderr


@pytest.mark.root
def test_what_the_server_answers_is_taken_apart(host: Host) -> None:
    answered = subprocess.run(
        [CVM_QMAIL], env=environment(host, {}), input=request("joe-foo"), capture_output=True, check=False, timeout=30
    )
    done = subprocess.run([CVMCTL, "decode"], input=answered.stdout, capture_output=True, check=True, timeout=30)
    assert b"0 SUCCESS\n" in done.stdout
    assert b"USERNAME (1)            3  joe\n" in done.stdout


def test_the_help_shows_how() -> None:
    done = CliRunner().invoke(decode, ["--help"])
    example = next(line for line in done.stdout.splitlines() if "cvmctl decode 02" in line)
    assert decoding(*example.split()[2:]).exit_code == 0


def test_without_construct_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "construct.py").write_text("raise ImportError(name='construct')\n")
    done = subprocess.run(
        [CVMCTL, "decode", "0200"],
        env=environment(None, {"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (111, "")
    assert "needs the package construct: install it with  pip install 'cvm-qmail[tool]'" in done.stderr
