"""cvmctl setup: what it finds on a host."""

from __future__ import annotations

import os

import pytest
from trees import ELF, PASSWD, System, found


def test_without_apply_nothing_is_written(runit: System) -> None:
    before = runit.files()
    said = runit.run()
    assert said.returncode == 0
    assert "would be written" in said.stdout
    assert "/etc/sv/cvm-rcptto/run (mode 0755)" in said.stdout
    assert runit.files() == before


def test_qmail_is_where_alias_lives(runit: System) -> None:
    runit.put("/etc/passwd", "alias:x:7790:2108::/srv/mail/qmail/alias:/bin/true\n")
    runit.put("/srv/mail/qmail/control/me", "mx.example.org\n")
    assert found(runit)["qmail"] == "/srv/mail/qmail"


def test_vpopmail_with_its_domains_and_where_its_accounts_are(runit: System) -> None:
    runit.put("/etc/passwd", PASSWD + "vpopmail:x:89:89::/home/vpopmail:/bin/true\n")
    for name in ("a.example", "b.example"):
        (runit.root / "home/vpopmail/domains" / name).mkdir(parents=True)
    assert found(runit)["vpopmail"] == {"home": "/home/vpopmail", "domains": 2, "database": ""}
    runit.put("/home/vpopmail/etc/vpopmail.mysql", "db.example|0|vpopmail|secret|vpopmail\n")
    said = found(runit)
    assert said["vpopmail"] == {"home": "/home/vpopmail", "domains": 2, "database": "mysql"}
    assert "the accounts are in a database: cvm-qmail needs its extra mysql" in said["advice"]


@pytest.mark.parametrize(
    ("words", "patches", "page"),
    [
        (b"", [], "README.md"),
        (b"RCPTCHECK\0USE_FD4\0", ["RCPTCHECK"], "rcptcheck.md"),
        (b"RCPTCHECK\0control/smtpplugins\0CHKUSER_START\0", ["qmail-spp", "RCPTCHECK", "chkuser"], "qmail-spp.md"),
        (b"qv temporary failure (#4.3.0)\0", ["qmail-verify"], "qmail-verify.md"),
        (b"control/recipients\0", ["recipients"], "sqmail.md"),
        (b"control/rcptchecks\0RCPTCHECK\0", ["rcptchecks", "RCPTCHECK"], "notqmail.md"),
    ],
)
def test_the_patches_of_qmail_smtpd(runit: System, words: bytes, patches: list[str], page: str) -> None:
    runit.put("/var/qmail/bin/qmail-smtpd", ELF + b"\0" + words)
    said = found(runit)
    assert said["qmail_smtpd"] == patches
    assert f"then connect the mail server: docs/mail-servers/{page}" in said["advice"]


def test_the_c_program_in_use_is_shadowed_and_its_secret_kept(runit: System) -> None:
    runit.put("/usr/bin/cvm-qmail", ELF)
    runit.put("/etc/sv/old/run", '#!/bin/sh\n# cvm-qmail cvm-local:/not/this\nexec chpst -e ./env cvm-qmail "$1"\n')
    runit.put("/etc/sv/old/env/CVM_LOOKUP", "cvm-local:/run/old/socket\n")
    runit.put("/etc/sv/old/env/CVM_LOOKUP_SECRET", "opensesame\n", 0o600)
    (runit.root / "etc/service/old").symlink_to("/etc/sv/old")
    (service,) = found(runit)["services"]
    assert (service["is_c"], service["module"]) == (True, "cvm-local:/run/old/socket")
    said = runit.applied()
    assert "the C program: /etc/sv/old (runit): cvm-qmail, cvm-local:/run/old/socket" in said.stdout
    assert "opensesame" not in said.stdout + runit.run("--json").stdout
    assert runit.text("/etc/sv/cvm-rcptto/env/CVM_SHADOW") == "cvm-local:/run/old/socket\n"
    assert runit.text("/etc/sv/cvm-rcptto/env/CVM_LOOKUP_SECRET") == "opensesame\n"


def test_mailfront_and_the_smtp_service(runit: System) -> None:
    runit.put("/usr/sbin/mailfront", ELF)
    runit.put("/etc/sv/smtpd/run", "#!/bin/sh\nexec tcpsvd 0 25 mailfront smtp qmail cvm-validate\n")
    assert "SMTP server: /etc/sv/smtpd (runit): mailfront" in runit.run().stdout
    assert found(runit)["mailfront"] == "/usr/sbin/mailfront"


def test_a_link_of_the_tree_stays_in_the_tree(runit: System) -> None:
    runit.put("/srv/vpop/domains/a.example/vpasswd")
    runit.put("/etc/passwd", PASSWD + "vpopmail:x:89:89::/vpop:/bin/true\n")
    (runit.root / "vpop").symlink_to("/srv/vpop")
    assert found(runit)["vpopmail"] == {"home": "/vpop", "domains": 1, "database": ""}


def test_a_pipe_in_place_of_a_file_does_not_make_it_wait(runit: System) -> None:
    (runit.root / "etc/sv/odd").mkdir(parents=True)
    os.mkfifo(runit.root / "etc/sv/odd/run")
    assert found(runit)["services"] == []
