"""cvmctl list: what is listed is accepted, and what is accepted is listed; an export is never half or empty."""

from __future__ import annotations

import subprocess

import cdblib
import pytest
from calling import called
from hosts import ALIAS_UID, NOFILES, Host
from serving import PLUGINS, environment, serving

from cvm_qmail.cvmctl.host.verdicts import PROBE
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.formats import notation

pytestmark = pytest.mark.root


def listing(host: Host, *arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
    return called("list", *arguments, env=environment(host, more))


def listed(host: Host, *arguments: str) -> list[str]:
    done = listing(host, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_server_accepts_every_listed_address(host: Host) -> None:
    addresses = [address.rpartition("@") for address in listed(host)]
    with serving(host) as server:
        for local, _, domain in addresses:
            account = local if not local.endswith("default") else local.removesuffix("default") + "anything"
            response = server.ask(account or "anyone", domain.replace("*", "some"))
            assert response.code == 0, (local, domain)


# -- what a person sees -------------------------------------------------------------------------------


def test_addresses_patterns_and_domains(host: Host) -> None:
    assert listed(host) == [
        "@*.w.example",
        "alias@example.org",
        "alias-postmaster@example.org",
        "ann@example.org",
        "ann-default@example.org",
        "joe@example.org",
        "joe-foo@example.org",
        "joe-list-default@example.org",
        "postmaster@example.org",
        "foo@v.example",
        "list-default@v.example",
    ]


def test_one_domain(host: Host) -> None:
    assert listed(host, "V.example") == ["foo@v.example", "list-default@v.example"]
    assert listed(host, "any.w.example") == ["@any.w.example"]
    assert listing(host, "not.w.example").returncode == 111
    assert listing(host, "elsewhere.example").returncode == 111


def test_users_cdb_and_whole_addresses(host: Host) -> None:
    host.users(
        "=ann:ann:5002:5002:{root}/home/ann:::",
        "+team.:joe:5001:5001:{root}/home/joe:-:list-:",
        "+box-:ann:5002:5002:{root}/home/ann:::",
        "+joe-:joe:5001:5001:{root}/home/joe:-::",
    )
    host.control("virtualdomains", "sales@v.example:joe-list\nnobody@v.example:joe-nothing\n")
    assert listed(host) == [
        "alias@example.org",
        "alias-postmaster@example.org",
        "ann@example.org",
        "ann-default@example.org",
        "box-@example.org",
        "box-default@example.org",
        "box--default@example.org",
        "joe@example.org",
        "joe-foo@example.org",
        "joe-list-default@example.org",
        "postmaster@example.org",
        "team.@example.org",
        "team.*@example.org",
        "sales@v.example",
    ]


def test_dots_slashes_and_names_that_no_address_reaches(host: Host) -> None:
    host.file("home/joe/.qmail-a:b", uid=5001)
    host.file("home/joe/.qmail-c.d", uid=5001)
    host.file("home/joe/.qmail-Capital", uid=5001)
    host.directory("home/joe/.qmail-directory", uid=5001)
    host.file("home/joe/.qmail-directory/inside", uid=5001)
    (host.root / "home/joe/.qmail-link").symlink_to("nowhere")
    mine = [address for address in listed(host, "example.org") if address.startswith("joe-")]
    assert mine == [
        "joe-a.b@example.org",
        "joe-directory/inside@example.org",
        "joe-foo@example.org",
        "joe-list-default@example.org",
    ]


def test_another_break_character_and_alias(host: Host) -> None:
    done = listing(host, "example.org", CVM_QMAIL_BREAK="+", CVM_QMAIL_ALIAS="joe")
    assert done.stdout.splitlines() == [
        "alias@example.org",
        "alias+postmaster@example.org",
        "ann@example.org",
        "ann+*@example.org",
        "foo@example.org",
        "joe@example.org",
        "joe+foo@example.org",
        "joe+list-default@example.org",
        "list-default@example.org",
    ]


# -- never by mistake ---------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 111
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_error_writes_nothing_without_an_option_that_allows_it(host: Host) -> None:
    (host.root / "home/ann").chmod(0o1755)
    out = host.root / "list"
    out.write_text("the old list\n")
    assert "ann@example.org: temporary failure: home-sticky" in refused(listing(host, "-o", str(out)))
    assert out.read_text() == "the old list\n"
    assert "ann@example.org" in listing(host, "--unknown", "include").stdout.splitlines()
    assert "ann@example.org" not in listing(host, "--unknown", "omit").stdout.splitlines()


@pytest.mark.parametrize("file", ["control/locals", "control/virtualdomains", "users/cdb", "passwd"])
def test_a_source_that_cannot_be_read_writes_nothing(host: Host, file: str) -> None:
    (host.root / file).unlink(missing_ok=True)
    host.directory(file)
    refused(listing(host, "--unknown", "omit"))


def test_a_home_that_hangs_is_a_temporary_failure_and_the_rest_goes_on(host: Host) -> None:
    host.file("home/joe/.qmail-foo", "|hang\n", uid=5001)
    hurried = {"PYTHONPATH": PLUGINS, "CVM_LOOKUP_TIMEOUT": "500"}
    done = listing(host, **hurried)
    assert (done.returncode, done.stdout) == (111, "")
    assert f"hang-backoff {host.root}/home/joe gave no answer within 0.5 seconds" in done.stderr
    done = listing(host, "--unknown", "omit", **hurried)
    assert done.returncode == 0
    assert "ann-default@example.org" in done.stdout.splitlines()
    assert "joe" not in done.stdout


def test_a_damaged_users_cdb_writes_nothing(host: Host) -> None:
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    path = host.root / "users/cdb"
    path.write_bytes(path.read_bytes()[:-20])
    assert "cdb-damaged" in refused(listing(host, "--unknown", "omit"))
    path.write_bytes(b"")
    assert "cdb-damaged" in refused(listing(host, "--unknown", "omit"))


def test_a_home_that_cannot_be_listed_is_a_temporary_failure(host: Host) -> None:
    host.users("+ghost-:ghost:5007:5007:{root}/passwd:-::")
    assert "/passwd" in refused(listing(host))


def test_what_another_module_judges_is_not_left_out_by_mistake(host: Host) -> None:
    host.file("home/joe/.qmail-db", "|/bin/db\n", uid=5001)
    done = listing(host, CVM_QMAIL_LOOKASIDE="/bin/db")
    assert "joe-db@example.org: a plug-in judges each address" in refused(done)
    left = listing(host, "--unknown", "omit", CVM_QMAIL_LOOKASIDE="/bin/db")
    assert "joe-foo@example.org" in left.stdout.splitlines()


def test_addresses_that_a_plug_in_without_a_helper_judges_are_not_left_out_by_mistake(host: Host) -> None:
    host.file("home/ann/.qmail-default", "|/x/vdelivermail '' bounce-no-mailbox\n", uid=5002)
    assert "ann-default@example.org: a plug-in judges each address" in refused(listing(host))


@pytest.mark.parametrize("setting", ["CVM_QMAIL_ASSUME_LOCAL", "CVM_QMAIL_MISSINGDOMAIN"])
def test_domains_that_no_file_names_are_not_left_out_by_mistake(host: Host, setting: str) -> None:
    assert "every domain is judged" in refused(listing(host, **{setting: ""}))


def test_an_empty_list_is_written_only_when_asked_for(host: Host) -> None:
    host.control("locals", "")
    host.control("virtualdomains", "")
    out = host.root / "list"
    assert "the list is empty" in refused(listing(host, "-o", str(out)))
    assert not out.exists()
    assert listing(host, "--allow-empty", "-o", str(out)).returncode == 0
    assert out.read_bytes() == b""


def test_a_file_is_replaced_whole_and_keeps_its_mode(host: Host) -> None:
    out = host.file("list", "old\n", mode=0o600)
    inode = out.stat().st_ino
    assert listed(host, "v.example", "-o", str(out)) == []
    assert out.read_text() == "foo@v.example\nlist-default@v.example\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.stat().st_ino != inode
    assert sorted(path.name for path in host.root.iterdir()) == ["alias", "control", "home", "list", "passwd", "users"]


def test_what_is_no_plain_file_is_never_replaced(host: Host) -> None:
    (host.root / "link").symlink_to("passwd")
    done = listing(host, "-o", str(host.root / "link"))
    assert done.returncode == 100
    assert (host.root / "link").is_symlink()


# -- formats ------------------------------------------------------------------------------------------


def without_wildcards(host: Host) -> None:
    host.control("virtualdomains", "v.example:joe\nall.example:ann\n")


def test_validrcptto(host: Host) -> None:
    without_wildcards(host)
    assert listed(host, "--format", "validrcptto") == listed(host)


def test_validrcptto_cdb(host: Host) -> None:
    without_wildcards(host)
    out = host.root / "validrcptto.cdb"
    assert listed(host, "--format", "cdb", "-o", str(out)) == []
    reader = cdblib.Reader(out.read_bytes())
    assert sorted(key.decode() for key, _ in reader.iteritems()) == sorted(listed(host))
    assert reader.get(b"joe-list-default@example.org") == b""
    assert reader.get(b"@all.example") == b""


def test_postfix(host: Host) -> None:
    without_wildcards(host)
    patterns = host.root / "patterns"
    assert listed(host, "--format", "postfix", "--patterns", str(patterns)) == [
        "@all.example OK",
        "alias@example.org OK",
        "alias-postmaster@example.org OK",
        "ann@example.org OK",
        "joe@example.org OK",
        "joe-foo@example.org OK",
        "postmaster@example.org OK",
        "foo@v.example OK",
    ]
    assert patterns.read_text().splitlines() == [
        r"/^ann-.*@example\.org$/ OK",
        r"/^joe-list-.*@example\.org$/ OK",
        r"/^list-.*@v\.example$/ OK",
    ]


def test_what_a_format_cannot_hold_is_not_left_out_by_mistake(host: Host) -> None:
    assert "cannot express @*.w.example" in refused(listing(host, "--format", "validrcptto"))
    assert "cannot express @*.w.example and 3 more (--patterns FILE)" in refused(listing(host, "--format", "postfix"))
    without_wildcards(host)
    host.file("home/joe/.qmail-a b", uid=5001)
    assert "cannot express joe-a b@example.org" in refused(listing(host, "--format", "cdb"))
    left = listed(host, "--format", "validrcptto", "--omit-inexpressible")
    assert "joe-foo@example.org" in left
    assert "joe-a b@example.org" not in left


def test_patterns_go_with_postfix_only(host: Host) -> None:
    assert listing(host, "--patterns", "x").returncode == 2


def test_odd_bytes_are_escaped(host: Host) -> None:
    host.file("home/joe/.qmail-\x1b[2J\n")
    assert "joe-\\x1b[2j\\x0a@example.org" not in listed(host)
    host.file("home/joe/.qmail-\x1b[2\n")
    assert "joe-\\x1b[2\\x0a@example.org" in listed(host)


def test_the_probe_is_nobodys_name(host: Host) -> None:
    host.file(f"alias/.qmail-{PROBE.decode()}", uid=ALIAS_UID, gid=NOFILES)
    assert f"{PROBE.decode()}@example.org" in listed(host, "example.org")
    assert notation(Entry(b"", True, b"example.org", False)) == b"@example.org"
