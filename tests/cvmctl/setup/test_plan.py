"""cvmctl setup: what it writes."""

from __future__ import annotations

import subprocess

import pytest
from trees import ELF, PASSWD, System


def test_the_service_of_runit_rejects_nothing_and_has_a_secret(runit: System) -> None:
    said = runit.applied()
    directory = "/etc/sv/cvm-rcptto"
    assert runit.text(f"{directory}/env/CVM_DRY_RUN") == "1\n"
    assert runit.text(f"{directory}/env/QMAIL_ROOT") == "/var/qmail\n"
    assert runit.text(f"{directory}/env/CVM_LOOKUP") == "cvm-local:/run/cvm-rcptto/socket\n"
    assert len(runit.text(f"{directory}/env/CVM_LOOKUP_SECRET").strip()) == 32
    assert runit.mode(f"{directory}/env/CVM_LOOKUP_SECRET") == 0o600
    assert runit.text(f"{directory}/env/CVM_LOOKUP_SECRET").strip() not in said.stdout
    assert " /opt/cvm-qmail/bin/cvm-qmail " in runit.text(f"{directory}/run")
    assert (runit.mode(f"{directory}/run"), runit.mode(f"{directory}/log/run")) == (0o755, 0o755)
    assert not (runit.root / "etc/service/cvm-rcptto").exists(), "it is not started"


def test_it_names_the_next_three_commands(runit: System) -> None:
    following = runit.applied().stdout.partition("\nnext\n")[2]
    assert following.splitlines()[:3] == [
        "  ln -s /etc/sv/cvm-rcptto /etc/service/",
        "  chpst -e /etc/sv/cvm-rcptto/env cvmctl ask cvm-local:/run/cvm-rcptto/socket postmaster@example.org",
        "  grep -F 'dry run: this would be rejected' /etc/sv/cvm-rcptto/log/main/current",
    ]


def test_the_account_is_made_first_where_it_is_missing(runit: System) -> None:
    runit.put("/etc/passwd", PASSWD.replace("cvm:", "other:"))
    assert "\n  useradd --system --no-create-home" in runit.applied().stdout


def test_s6(system: System) -> None:
    system.put("/usr/bin/s6-svscan", ELF)
    (system.root / "run/service").mkdir(parents=True)
    system.applied()
    assert "s6-envdir" in system.text("/etc/s6/cvm-rcptto/run")
    assert system.mode("/etc/s6/cvm-rcptto/env/CVM_LOOKUP_SECRET") == 0o600


def test_systemd(systemd: System) -> None:
    systemd.put("/etc/passwd", PASSWD + "vpopmail:x:89:89::/home/vpopmail:/bin/true\n")
    (systemd.root / "home/vpopmail/domains").mkdir(parents=True)
    systemd.put("/home/vpopmail/etc/vpopmail.pgsql", "db.example|0|vpopmail|x|vpopmail\n")
    systemd.applied()
    unit = systemd.text("/etc/systemd/system/cvm-rcptto.service")
    assert "ExecStart=/opt/cvm-qmail/bin/cvm-qmail cvm-local:/run/cvm-rcptto/socket\n" in unit
    assert "\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n" in unit, "for the database"
    assert "\nCVM_DRY_RUN=1\n" in systemd.text("/etc/cvm-rcptto.conf")
    assert systemd.mode("/etc/cvm-rcptto.conf") == 0o600
    assert "ListenStream=/run/cvm-rcptto/socket" in systemd.text("/etc/systemd/system/cvm-rcptto.socket")


@pytest.mark.peer("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_its_units(systemd: System) -> None:
    systemd.put("/etc/systemd/system/cvm-rcptto.service", "[Service]\nExecStart=/usr/bin/cvm-qmail cvm-local:/run/s\n")
    done = systemd.run("--apply", program="/bin/true")
    assert done.returncode == 0, done.stderr
    units = [systemd.root / f"etc/systemd/system/cvm-rcptto-2.{kind}" for kind in ("service", "socket")]
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_an_odd_value_is_the_same_to_systemd_and_to_a_shell(systemd: System) -> None:
    systemd.put("/etc/sv/old/run", "exec cvm-qmail cvm-local:/run/old/socket\n")
    systemd.put("/etc/sv/old/env/CVM_LOOKUP_SECRET", 'a b$c"d`e\\f\n')
    systemd.applied()
    conf = systemd.root / "etc/cvm-rcptto.conf"
    done = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$CVM_LOOKUP_SECRET"', "sh", conf], capture_output=True, text=True, check=True
    )
    assert done.stdout == 'a b$c"d`e\\f'


def test_where_the_package_has_brought_units_only_settings_are_written(systemd: System) -> None:
    systemd.put("/lib/systemd/system/cvm-rcptto.service")
    systemd.put("/etc/cvm-qmail/env/CVM_LOOKUP_SECRET", "opensesame\n", 0o600)
    before = set(systemd.files())
    said = systemd.applied()
    assert set(systemd.files()) - before == {
        "etc/cvm-qmail/env/CVM_DRY_RUN",
        "etc/cvm-qmail/env/QMAIL_ROOT",
        *("var/lib", "var/lib/cvm-qmail", "var/lib/cvm-qmail/setup.json"),
    }
    assert 'CVM_LOOKUP_SECRET="$(cat /etc/cvm-qmail/env/CVM_LOOKUP_SECRET)" cvmctl ask' in said.stdout


def test_and_none_that_is_there(systemd: System) -> None:
    systemd.put("/lib/systemd/system/cvm-rcptto.service")
    systemd.put("/etc/cvm-qmail/env/QMAIL_ROOT", "/var/notqmail\n")
    systemd.applied()
    assert systemd.text("/etc/cvm-qmail/env/QMAIL_ROOT") == "/var/notqmail\n"
    assert systemd.run("--undo").returncode == 0
    assert systemd.text("/etc/cvm-qmail/env/QMAIL_ROOT") == "/var/notqmail\n"


def test_beside_a_service_of_that_name_it_takes_another(runit: System) -> None:
    runit.put("/etc/sv/cvm-rcptto/run", "exec cvm-qmail cvm-local:/run/cvm-rcptto/socket\n")
    runit.applied()
    assert runit.text("/etc/sv/cvm-rcptto-2/env/CVM_LOOKUP") == "cvm-local:/run/cvm-rcptto-2/socket\n"
    assert runit.text("/etc/sv/cvm-rcptto-2/env/CVM_SHADOW") == "cvm-local:/run/cvm-rcptto/socket\n"
