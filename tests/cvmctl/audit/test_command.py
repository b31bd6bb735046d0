"""cvmctl audit: the logs of a real qmail-send beside the verdicts of today."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import vhosts
from click.testing import CliRunner, Result
from hosts import CORPUS, Host, as_bytes, load, materialise, temporary_directory
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.audit.command import audited, service, size, trace_command
from cvm_qmail.cvmctl.audit.logfiles import LogFiles
from cvm_qmail.cvmctl.group import cvmctl
from cvm_qmail.cvmctl.host.pool import Pool
from cvm_qmail.cvmctl.host.rewriting import logged
from cvm_qmail.qmail import qmail
from cvm_qmail.rules.domains import Local, rewrite
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

LOGS = CORPUS / "logs"
NAMES = sorted(path.stem for path in LOGS.glob("*.json"))
MARKS = {"deliver": "+", "no-mailbox": "-", "remote": "=", "defer": "?"}

NO_MAILBOX = b"Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"


@contextmanager
def corpus_host(facts: Mapping[str, Any], phase: int = -1) -> Iterator[Host]:
    """The host of a log, with the control files of a phase."""
    system = {"assign": None, "cdb": None, "group": [], **facts["system"]}
    with temporary_directory() as root:
        host = materialise(system, root)
        for name, text in facts["phases"][phase]["control"].items():
            host.control(name, as_bytes(text))
        for past in facts["phases"][: phase + 1 or None]:
            if past["cause"] == "chmod":
                (root / past["change"]["path"]).chmod(int(past["change"]["mode"], 8))
        yield host


def audit(host: Host, *arguments: str | Path, data: bytes = b"") -> Result:
    return CliRunner().invoke(cvmctl, ("audit", *map(str, arguments)), input=data, env=host.environment)


def log(*deliveries: tuple[str, str], day: int = 0) -> bytes:
    """A log with one message for each address and outcome."""
    lines = []
    for number, (address, outcome) in enumerate(deliveries, 1):
        lines += [
            "new msg 7",
            f"info msg 7: bytes {1000 * number} from <x@far.test> qp 5 uid 6",
            f"starting delivery {number}: msg 7 to local {address}",
            f"delivery {number}: {outcome}",
            *(["bounce msg 7 qp 8"] if outcome.startswith("failure") else []),
            "end msg 7",
        ]
    return "".join(f"@{(1 << 62) + 10 + day * 86400:016x}00000000 {line}\n" for line in lines).encode()


SUCCESS = "success: did_1+0+0/"
FAILURE = f"failure: {NO_MAILBOX.decode()}"


# -- against the facts of the corpus ------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES)
def test_each_logged_address_has_the_verdict_of_its_recipient(name: str) -> None:
    facts = load(LOGS / f"{name}.json")
    for number in range(len(facts["phases"])):
        rows = [row for row in facts["deliveries"] if row["channel"] == "local" and row["phase"] == number]
        told_apart = [row for row in rows if logged(as_bytes(row["recipient"])) == as_bytes(row["recipient"])]
        expected = {as_bytes(row["recipient"]): MARKS[row["expect"]] for row in told_apart}
        with corpus_host(facts, number) as host:
            settings = Settings.from_environment({**host.environment, "CVM_QMAIL_PROGRAMS": "vpopmail"})
            with Pool(settings, service(qmail), 1) as pool:
                said = {answer.asked: answer.mark for answer in pool.ask(expected)}
        assert said == expected


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_qmail_delivered_would_be_refused(name: str) -> None:
    facts = load(LOGS / f"{name}.json")
    with corpus_host(facts) as host:
        done = audit(host, "--json", LOGS / f"{name}.multilog")
    report = json.loads(done.stdout)
    assert report["refused"] == {"total": 0, "first": []}
    assert report["accepted"]["total"] == len({row["recipient_logged"] for row in facts["deliveries"] if scripted(row)})
    assert done.exit_code != 1


def scripted(row: dict[str, Any]) -> bool:
    """Whether a shell line, which only a run could judge, printed that there is no mailbox."""
    return row["outcome"] == "failure-other" and "no_mailbox_here" in row["text"] and row["expect"] == "deliver"


@pytest.mark.root
@pytest.mark.parametrize("name", ["plain-host", "virtual-domains"])
def test_the_figures_are_those_of_the_facts(name: str) -> None:
    facts = load(LOGS / f"{name}.json")
    with corpus_host(facts) as host:
        settings = Settings.from_environment(host.environment)
        report = audited(LogFiles([os.fsencode(LOGS / f"{name}.svlogd-tt")]), settings, service(qmail), 20, 1)
    rows = facts["deliveries"]
    local = [row for row in rows if row["channel"] == "local"]
    assert (report.local, report.remote) == (len(local), len(rows) - len(local))
    assert (report.messages, report.lines) == (len(facts["messages"]), facts["counts"]["lines"])
    assert report.addresses == len({row["recipient_logged"] for row in local})
    kinds = {"success": "delivered", "failure-no-mailbox": "bounced: no mailbox", "failure-other": "bounced: otherwise"}
    kinds["deferral"] = "deferred"
    said = [row | {"outcome": "failure-no-mailbox"} if scripted(row) else row for row in local]
    assert report.matrix == Counter((kinds[row["outcome"]], MARKS[row["expect"]]) for row in said)

    refused = [row for row in local if row["outcome"].startswith("failure") and row["expect"] == "no-mailbox"]
    whole = []
    for at, message in enumerate(facts["messages"]):
        last = [row for row in rows if row["message"] == at and row["outcome"] != "deferral"]
        if "end_line" in message and last and all(row in refused for row in last):
            whole.append(message)
    gain = report.gain
    assert (gain.deliveries, gain.addresses) == (len(refused), len({row["recipient_logged"] for row in refused}))
    assert (gain.messages, gain.size) == (len(whole), sum(message["bytes"] for message in whole))
    assert gain.bounces == sum("bounce_qp" in message for message in whole)
    domains = Counter(row["recipient_logged"].rpartition("@")[2].lower() for row in refused)
    assert {one.domain.decode(): one.deliveries for one in report.domains} == domains


# -- what is reported -------------------------------------------------------------------------------------


@pytest.mark.root
def test_the_report_for_a_colleague(host: Host) -> None:
    given = log(
        ("joe@example.org", SUCCESS),
        ("joe-bob@v.example", SUCCESS),
        ("joe-foo@v.example", SUCCESS),
        ("nobody@example.org", FAILURE),
        ("nobody@example.org", FAILURE),
        ("joe@example.org", FAILURE),
        ("ann-x@v.example", SUCCESS),
        ("ann-x@example.org", "deferral: later/"),
    )
    done = audit(host, "-", data=given + b"nonsense \x1b[31m\n")
    assert done.exit_code == 1
    assert done.stdout == (
        "qmail-send's log, 1970-01-01: 1 file, 44 lines, 8 messages,"
        " 8 local and 0 remote deliveries, 6 local addresses\n"
        "\n"
        "Delivered by qmail, and would be rejected: 1 address\n"
        f"  bob@v.example  no-mailbox {host.root}/home/joe  (once, last 1970-01-01)\n"
        "    cvmctl trace bob@v.example\n"
        "\n"
        "Bounced, and would be rejected at RCPT: 2 deliveries to 1 address\n"
        "  2 messages (9.0 kB) would have been rejected, and 2 bounces not sent\n"
        "domain       deliveries  addresses  messages    size  bounces\n"
        "example.org           2          1         2  9.0 kB        2\n"
        "rejected most       deliveries  reason\n"
        "nobody@example.org           2  no-mailbox\n"
        "\n"
        "Bounced for lack of a mailbox, and would be accepted: 1 address\n"
        f"  joe@example.org  mailbox {host.root}/home/joe  (once, last 1970-01-01)\n"
        "    cvmctl trace joe@example.org\n"
        "\n"
        "Temporary failure: 1 address\n"
        "  ann-x@v.example  no-way-back control/virtualdomains today's control files rewrite no address to this"
        "  (once, last 1970-01-01)\n"
        "\n"
        "Local deliveries by outcome and today's verdict:\n"
        "outcome                    accepted  rejected  out of scope  temporary failure\n"
        "delivered                         2         1             0                  1\n"
        "bounced: no mailbox               1         2             0                  0\n"
        "bounced: mailbox full             0         0             0                  0\n"
        "bounced: mailbox disabled         0         0             0                  0\n"
        "bounced: otherwise                0         0             0                  0\n"
        "deferred                          1         0             0                  0\n"
        "without an end                    0         0             0                  0\n"
        "Note: lines not understood: 1\n"
        r"Note: not understood: nonsense \x1b[31m" + "\n"
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("deliveries", "status"),
    [
        ([("joe@example.org", SUCCESS), ("nobody@example.org", FAILURE)], 0),
        ([("nobody@example.org", SUCCESS), ("ann-x@v.example", SUCCESS)], 1),
        ([("no_body@example.org", SUCCESS)], 111),
        ([("ann-x@v.example", SUCCESS)], 111),
        ([("nobody@example.org", SUCCESS), ("nobody@example.org", FAILURE)], 0),
        ([("x-joe@gone.example", SUCCESS)], 0),
    ],
)
def test_the_exit_status_says_the_worst(host: Host, deliveries: list[tuple[str, str]], status: int) -> None:
    assert audit(host, "-", data=log(*deliveries)).exit_code == status


@pytest.mark.root
def test_what_is_only_forwarded_to_nobody_is_a_gain_of_its_own(host: Host) -> None:
    host.file("home/joe/.qmail-old", "nobody@example.org\n", uid=5001, gid=5001)
    deliveries = log(("joe-old@example.org", "success: did_0+1+0/qp_9/"), ("nobody@example.org", FAILURE))
    report = json.loads((done := audit(host, "--json", "-", data=deliveries)).stdout)
    assert [one["address"] for one in report["forwarded"]["first"]] == ["joe-old@example.org"]
    assert (report["refused"]["total"], report["gain"]["deliveries"], done.exit_code) == (0, 1, 0)
    said = audit(host, "-", data=deliveries).stdout
    assert "would be rejected with CVM_QMAIL_FOLLOW=1: 1 address" in said


@pytest.mark.root
def test_a_program_that_talks_like_qmail_is_not_taken_for_it(host: Host) -> None:
    done = audit(host, "--json", "-", data=log(("joe@example.org", "failure: Sorry,_no_mailbox._(#5.1.1)/")))
    report = json.loads(done.stdout)
    assert (report["accepted"]["total"], report["gain"]["deliveries"], done.exit_code) == (0, 0, 0)


@pytest.mark.root
def test_control_files_that_cannot_be_read_make_nothing_known(host: Host) -> None:
    (host.root / "control/locals").unlink()
    host.directory("control/locals")
    report = json.loads(audit(host, "--json", "-", data=log(("joe@example.org", SUCCESS))).stdout)
    assert [one["reason"] for one in report["unknown"]["first"]] == ["control"]


@pytest.mark.root
def test_files_are_put_in_order_and_read_compressed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(log(("nobody@example.org", FAILURE), day=2))
    (tmp_path / "b.gz").write_bytes(gzip.compress(log(("nobody@example.org", SUCCESS), day=1)))
    done = audit(host, "--json", tmp_path / "a", tmp_path / "b.gz")
    report = json.loads(done.stdout)
    assert (report["gone"], report["refused"]["total"], done.exit_code) == (1, 0, 0)
    assert [day["day"] for day in report["days"]] == ["1970-01-02", "1970-01-03"]


@pytest.mark.root
def test_what_cannot_be_read_is_named_and_the_rest_reported(host: Host, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(log(("joe@example.org", SUCCESS)))
    done = audit(host, tmp_path / "log", tmp_path / "absent")
    assert done.exit_code == 111
    assert "absent: not read to its end: No such file or directory" in done.stdout
    assert "1 local and" in done.stdout


@pytest.mark.root
def test_the_page_says_the_same(host: Host, tmp_path: Path) -> None:
    done = audit(host, "--html", tmp_path / "report.html", "-", data=log(("nobody@example.org", SUCCESS)))
    page = (tmp_path / "report.html").read_text()
    assert "cvmctl trace nobody@example.org" in page
    assert "cvmctl trace nobody@example.org" in done.stdout
    assert audit(host, "--html", tmp_path / "no/directory", "-", data=b"").exit_code == 111


def test_without_a_log_it_prints_how_to_use_it() -> None:
    done = CliRunner().invoke(cvmctl, ["audit"])
    assert done.exit_code == 2
    assert "LOG" in done.stderr


@pytest.mark.root
def test_domains_of_vpopmail_are_seen_as_the_server_sees_them() -> None:
    system = load(CORPUS / "vpopmail/basic-cdb.json")
    text = "failure: Sorry,_no_mailbox_here_by_that_name._vpopmail_(#5.1.1)/"
    outcomes = {"deliver": SUCCESS, "no-mailbox": text}
    with temporary_directory() as root:
        host = vhosts.materialise(system, root)
        controls = Tables(Settings.from_environment(host.environment), lasting=False).controls()
        given = []
        for case in system["cases"]:
            route = rewrite(b"%s@%s" % vhosts.recipient(case), controls) if case["domain"] else None
            if isinstance(route, Local) and case["expect"] in outcomes:
                shown = logged(b"%s@%s" % (route.local, route.host)).decode()
                given.append((shown, outcomes[case["expect"]]))
        done = CliRunner().invoke(cvmctl, ["audit", "--json", "-"], input=log(*given), env=dict(host.environment))
    report = json.loads(done.stdout)
    assert report["refused"]["total"] == 0
    assert report["gain"]["deliveries"] == sum(outcome == text for _, outcome in given) > 0


# -- small things -------------------------------------------------------------------------------------


@given(st.binary(max_size=30).filter(lambda address: b"\0" not in address))
def test_the_command_to_type_means_the_address_and_is_printable(address: bytes) -> None:
    command = trace_command(address)
    assert command.isascii()
    assert command.isprintable()
    if "$'" in command:
        return
    assert shlex.split(command)[-1].encode() == address
    assert shlex.split(command)[:-1] in (["cvmctl", "trace"], ["cvmctl", "trace", "--"])


@pytest.mark.parametrize("address", [b"a'b\x1b\\c\xe9@x", b"\n", b"-x@y", b"$(id)@x", b"!\x07`id`"])
def test_a_shell_reads_the_command_as_it_was_meant(address: bytes) -> None:
    command = trace_command(address).replace("cvmctl trace", "printf %s", 1).replace(" -- ", " ")
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=20).stdout == address


def test_sizes_are_written_for_people() -> None:
    assert [size(n) for n in (0, 1, 999, 1000, 12_345, 10**6, 10**9, 5 * 10**15)] == [
        "0 bytes", "1 bytes", "999 bytes", "1.0 kB", "12.3 kB", "1.0 MB", "1.0 GB", "5,000.0 TB",
    ]  # fmt: skip
