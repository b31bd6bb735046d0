"""The documents say what the programs do: settings, reasons, messages, links, man pages, and the example that runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import links
import pytest
import reference
from hosts import NOFILES, Host, cdb_bytes, temporary_directory
from serving import CVM_QMAIL, PLUGINS, Server, serving, until

from cvm_directory.settings import SETTINGS as OF_DIRECTORY
from cvm_qmail.entry_points import all_settings
from cvm_qmail.gateway.settings import SETTINGS as OF_GATEWAY
from cvm_qmail.gateway.settings import SHARED
from cvm_qmail.protocols.cvm import client
from cvm_qmail.protocols.cvm.packets import Fact
from cvm_qmail.settings import SETTINGS
from cvm_vmailmgr.settings import SETTINGS as OF_VMAILMGR
from cvm_vpopmail.declared import SETTINGS as OF_VPOPMAIL

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
PAGES = sorted([*TOP.glob("*.md"), *DOCS.rglob("*.md"), *(TOP / "contrib").rglob("*.md")])
MAN_PAGES = sorted((DOCS / "man").glob("*.[1-8]"))

DEFAULTS = {variable.name: variable.default for variable in SETTINGS.values()}
DEFAULTS_OF_VPOPMAIL = {variable.name: variable.default for variable in OF_VPOPMAIL.values()}
DEFAULTS_OF_VMAILMGR = {variable.name: variable.default for variable in OF_VMAILMGR.values()}
DEFAULTS_OF_DIRECTORY = {variable.name: variable.default for variable in OF_DIRECTORY.values()}
DEFAULTS_OF_GATEWAY = {variable.name: variable.default for variable in (OF_GATEWAY | SHARED).values()}
DECLARED = {setting.name for declared in all_settings().values() for setting in declared.values()}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# -- what is made from the registries -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(TOP)))
def test_what_is_made_from_the_registries_is_up_to_date(path: Path) -> None:
    assert reference.made(path.read_text()) == path.read_text(), "run scripts/reference"


def test_the_tables_of_the_registries_are_in_their_pages() -> None:
    found = re.findall(
        r"^<!-- made by scripts/reference: (.*) -->$",
        page("reasons.md") + page("settings.md") + page("cvmctl.md"),
        re.MULTILINE,
    )
    assert sorted(found) == sorted(reference.PARTS)


def test_a_cell_of_a_table_is_no_markup() -> None:
    assert reference._cell("a|b *c* <d>") == "a\\|b \\*c\\* \\<d>"


# -- settings -----------------------------------------------------------------------------------------


def test_the_settings_page_has_each_variable_its_default_and_an_example() -> None:
    sections = re.split(r"^## ", page("settings.md"), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        name = section.partition("\n")[0]
        default = re.search(r"^Default: `?(.*?)`?\.$", section, re.MULTILINE)
        if default:
            found[name] = default[1]
            assert re.search(rf"^    {name}=", section, re.MULTILINE), f"no example for {name}"
    assert found == DEFAULTS | DEFAULTS_OF_VPOPMAIL


def test_every_declared_setting_is_explained_on_some_page() -> None:
    written = [
        re.sub(r"^<!-- made by .*?^<!-- end -->$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for path in PAGES
    ]
    named = set(re.findall(r"\b(?:[A-Z]+_)+[A-Z_]+\b", "\n".join(written)))
    assert not DECLARED - named


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("cvm-qmail", DEFAULTS),
        ("cvm-vpopmail", DEFAULTS_OF_VPOPMAIL),
        ("cvm-vmailmgr", DEFAULTS_OF_VMAILMGR),
        ("cvm-directory", DEFAULTS_OF_DIRECTORY),
        ("cvm-gateway", DEFAULTS_OF_GATEWAY),
    ],
    ids=["cvm-qmail", "cvm-vpopmail", "cvm-vmailmgr", "cvm-directory", "cvm-gateway"],
)
def test_the_manual_page_has_every_variable_with_its_default(name: str, defaults: dict[str, str]) -> None:
    text = page(f"man/{name}.8").replace("\\-", "-")
    assert dict(re.findall(r"^\.It Ev (\S+)\nDefault: (.*)\.$", text, re.MULTILINE)) == defaults


def test_the_pages_name_no_variable_that_nobody_reads() -> None:
    named = {name for path in PAGES for name in re.findall(r"\b(?:CVM_)?VPOPMAIL_[A-Z_]+\b", path.read_text())}
    assert named == set(DEFAULTS_OF_VPOPMAIL)


# -- messages -----------------------------------------------------------------------------------------


def explained(title: str) -> list[re.Pattern[str]]:
    """The messages in the first column of a table of docs/troubleshoot.md; `...` and N are placeholders."""
    section = page("troubleshoot.md").partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    return [
        re.compile(
            re.sub(r"\\\.\\\.\\\.|\b(?:N|PATH|PLACE|STATUS|WHY|EXCEPTION|FILE:LINE)\b", ".*", re.escape(message))
        )
        for message in messages
    ]


def unexplained(lines: list[str], title: str) -> list[str]:
    """The lines that no message of the table is a part of."""
    table = explained(title)
    return [line for line in lines if not any(message.search(line) for message in table)]


def test_a_message_that_is_not_in_the_table_is_found() -> None:
    assert unexplained(["worker 3 sings"], "Messages while running") == ["worker 3 sings"]
    assert not unexplained(["? worker 3 ended with signal 9; another one takes its place"], "Messages while running")


@pytest.mark.root
@pytest.mark.peer("setpriv")
def test_every_warning_at_start_is_explained(host: Host) -> None:
    own = host.directory("run", uid=65534, gid=65534)
    host.file("nobody", b"joe:x:5001:5001::/:/bin/sh\n")
    host.directory("empty")
    host.directory("broken/control")
    host.file("broken/control/me", b"mx.example.org\n", mode=0o600)
    said: list[str] = []
    for settings in (
        {"CVM_LOOKUP_SECRET": None},
        {"QMAIL_ROOT": str(host.root / "empty")},
        {"QMAIL_ROOT": str(host.root / "broken")},
        {"NSS_WRAPPER_PASSWD": str(host.root / "nobody")},
        {"NSS_WRAPPER_PASSWD": str(host.root / "empty")},
        {"CVM_DRY_RUN": "1"},
    ):
        with serving(host, **settings) as server:
            said += _warnings(server)
    with serving(host, wrapper=("setpriv", "--reuid=65534", "--regid=65534", "--groups=1"), path=own / "s") as server:
        said += _warnings(server)
    everywhere = _program(host, "everywhere", f'exec {CVM_QMAIL} "cvm-udp:0.0.0.0:${{1##*:}}"')
    with serving(host, program=everywhere, scheme="cvm-udp") as server:
        said += _warnings(server)
    assert len(said) >= 9, said
    assert not unexplained(said, "Warnings at start")


def _warnings(server: Server) -> list[str]:
    last = re.compile("running as root|not privileged")  # they may come after "Starting."
    until(lambda: last.search(server.errors.read_text()), "all warnings")
    server.stop()
    return re.findall(r"^cvm-qmail: warning: (.*)$", server.errors.read_text(), re.MULTILINE)


def _program(host: Host, name: str, text: str) -> Path:
    """A shell script."""
    program = host.root / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


@pytest.mark.root
def test_every_message_while_running_is_explained(host: Host) -> None:
    host.file("home/joe/.qmail-hang", b"|hang\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-raise", b"|raise\n", uid=5001, gid=5001)
    more = {"PYTHONPATH": PLUGINS, "CVM_LOOKUP_TIMEOUT": "1000", "CVM_SHADOW": f"cvm-local:{host.root}/nobody"}
    with serving(host, **more) as server:
        assert server.ask("joe").code == 0
        assert server.ask("joe-raise").code == 4
        server.logged("shadow:")
        with pytest.raises(client.NoAnswer):
            server.ask("joe-hang")
        server.logged(" killed: ")
        os.kill(server.workers()[-1], signal.SIGKILL)  # the first may be the one that hung
        server.logged(" ended with ")
        server.path.unlink()
        server.logged("was missing; created again")
        with serving(host, "--takeover", path=server.path):
            assert server.process.wait(20) == 0
        own = [line for line in server.log.read_text().splitlines() if not re.match(r"[-+?!] \S+@", line)]
    assert len(own) >= 6, own
    assert not unexplained(own, "Messages while running")


# -- pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))
def test_links_lead_somewhere(path: Path) -> None:
    assert links.dead(path) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# One\n\n## The second: a `title`\n")
    text = "[a](page.md#the-second-a-title) [b](page.md#three) [c](gone.md) [d](https://example.org/) [e](#here)"
    (tmp_path / "other.md").write_text(f"# Here\n\n{text}\n\n```\n[f](nowhere.md)\n```\n")
    assert links.dead(tmp_path / "other.md") == ["page.md#three", "gone.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))
def test_scripts_and_services_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"(?<![\w/.])(?:scripts|contrib|\.ci|\.github)/[\w./+-]*\w", path.read_text()))
    assert not [name for name in named if not (TOP / name).exists()]


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (TOP / "README.md").read_text()))
    assert linked >= {str(path.relative_to(TOP)) for path in (*DOCS.glob("*.md"), *MAN_PAGES)}


def test_the_readme_is_two_screens() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) <= 100


@pytest.mark.peer("groff")
@pytest.mark.parametrize("path", MAN_PAGES, ids=lambda path: path.name)
def test_man_pages_render_without_a_warning(path: Path) -> None:
    done = subprocess.run(
        ["groff", "-mandoc", "-ww", "-Tutf8", "-P-cbou", str(path)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stderr == ""
    assert "SYNOPSIS" in done.stdout


# -- the example plug-in ----------------------------------------------------------------------------


def installed(directory: Path) -> None:
    """The example of docs/plugins.md as if it had been installed into `directory`."""
    text = page("plugins.md")
    (source,), (project,) = blocks(text, "python"), blocks(text, "toml")
    (directory / "deliver_to_db.py").write_text(source)
    about = tomllib.loads(project)["project"]
    info = directory / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in about["entry-points"].items()
        )
    )


def test_the_plug_in_that_is_quoted_is_the_one_that_is_installed() -> None:
    quoted = re.search(r"<!-- bouncesaying.py -->\n```\n(.*?)```", page("plugins.md"), re.DOTALL)
    assert quoted is not None
    assert quoted[1] in (TOP / "cvm_qmail/programs/bouncesaying.py").read_text()


@pytest.mark.root
def test_the_example_plug_in_judges_what_it_says_it_does(host: Host) -> None:
    line = b"|/usr/local/bin/deliver-to-db\n"
    host.file("home/joe/.qmail-default", b"# all mail\n" + line, uid=5001, gid=5001)
    host.file("home/joe/.qmail-both", b"./Maildir/\n" + line, uid=5001, gid=5001)
    host.file("home/joe/.qmail-other", b"|/usr/bin/true\n", uid=5001, gid=5001)
    database = host.file("mailboxes.cdb", cdb_bytes([(b"mail", b"")]))
    with temporary_directory() as directory:
        installed(directory)
        with serving(host, PYTHONPATH=str(directory), DELIVER_TO_DB=str(database)) as server:
            assert f"cvm-qmail: deliver-to-db: mailboxes in {database}" in server.errors.read_text()
            assert server.ask("joe-Mail").code == 0
            assert dict(server.ask("joe-mail").facts)[Fact.USERNAME] == b"joe"
            assert dict(server.ask("joe-spam").facts) == {Fact.OUTOFSCOPE: b"0"}
            assert server.ask("joe-both").code == 100, "what another line has delivered does not save it"
            assert server.ask("joe-other").code == 0, "not a file of deliver-to-db"
            assert f"- joe-spam@example.org joe db-no-mailbox {database}" in server.logged("joe-spam")
            database.chmod(0o600)
            assert server.ask("joe-mail").code == 4, "its user may not read the database"
            database.unlink()
            assert server.ask("joe-mail").code == 4
            assert "db-missing" in server.logged("db-missing")
        with serving(host, PYTHONPATH=str(directory), DELIVER_TO_DB=str(database), CVM_QMAIL_PROGRAMS="") as server:
            assert server.ask("joe-spam").code == 0, "plug-ins can be switched off"


@pytest.mark.root
def test_the_skeleton_of_a_program_judges_what_it_says_it_does(host: Host) -> None:
    host.file("home/joe/.qmail-default", b"|my-deliver\n", uid=5001, gid=5001)
    host.directory("home/joe/mailboxes/mail", uid=5001, gid=5001)
    (source,) = blocks((TOP / "CONTRIBUTING.md").read_text(), "python")
    with temporary_directory() as directory:
        (directory / "mine.py").write_text(source)
        info = directory / "mine-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[cvm_qmail.programs]\nmine = mine:my_deliver\n")
        with serving(host, PYTHONPATH=str(directory)) as server:
            assert [server.ask(f"joe-{ext}").code for ext in ("mail", "spam", "../mailboxes/mail")] == [0, 100, 100]


@pytest.mark.root
def test_the_example_plug_in_says_at_start_what_is_wrong_with_its_setting(host: Host) -> None:
    with temporary_directory() as directory:
        installed(directory)
        with serving(host, wait=False, PYTHONPATH=str(directory), DELIVER_TO_DB="mailboxes.cdb") as server:
            assert server.process.wait(20) == 100
            assert "DELIVER_TO_DB" in server.errors.read_text()


# -- what docs/security.md promises of a server without rights ------------------------------------------


@pytest.mark.root
@pytest.mark.peer("setpriv")
def test_an_unprivileged_server_never_rejects_what_it_cannot_see(host: Host) -> None:
    host.user("closed", 5004, ".qmail-x", mode=0o700)
    host.directory("behind", mode=0o710, gid=NOFILES)  # qmailp can search it, the server cannot
    host.directory("behind/bob", uid=5005, gid=5005)
    host.passwd("closed:x:5004:5004::{root}/home/closed:/bin/sh", "bob:x:5005:5005::{root}/behind/bob:/bin/sh")
    run = host.directory("run", uid=65534, gid=65534)
    with serving(host, program=_without_rights(host), path=run / "socket") as server:
        assert server.ask("closed-x").code == 4
        assert server.ask("bob").code == 4


def _without_rights(host: Host) -> Path:
    """cvm-qmail as nobody."""
    return _program(host, "as-nobody", f'exec setpriv --reuid=65534 --regid=65534 --clear-groups {CVM_QMAIL} "$@"')
