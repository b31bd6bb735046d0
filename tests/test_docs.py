"""The documents say what the code does: settings, reasons, links, man pages, and the example that runs."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import NOFILES, Host, a_folder, cdb_bytes
from serving import CVM_QMAIL, serving

import cvm_qmail
import cvm_vpopmail
from cvm_qmail.settings import VARIABLES
from cvm_qmail.wire import Fact
from cvm_vpopmail.settings import VARIABLES as OF_VPOPMAIL

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
PAGES = sorted([*TOP.glob("*.md"), *DOCS.rglob("*.md")])
MAN_PAGES = [DOCS / "man" / name for name in ("cvm-qmail.8", "cvm-vpopmail.8", "cvmctl.1")]
PACKAGE, VPOPMAIL = (Path(module.__file__).parent for module in (cvm_qmail, cvm_vpopmail))

DEFAULTS = {variable.name: variable.default for variable in VARIABLES}
DEFAULTS_OF_VPOPMAIL = {variable.name: variable.default for variable in OF_VPOPMAIL}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# -- settings ---------------------------------------------------------------------------------------


def test_the_settings_page_has_every_variable_with_its_default_and_an_example() -> None:
    sections = re.split(r"^## ", page("settings.md"), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        name = section.partition("\n")[0]
        default = re.search(r"^Default: `?(.*?)`?\.$", section, re.MULTILINE)
        if default:
            found[name] = default[1]
            assert re.search(rf"^    {name}=", section, re.MULTILINE), f"no example for {name}"
    assert found == DEFAULTS | DEFAULTS_OF_VPOPMAIL


@pytest.mark.parametrize(
    ("name", "defaults"),
    [("cvm-qmail", DEFAULTS), ("cvm-vpopmail", DEFAULTS_OF_VPOPMAIL)],
    ids=["cvm-qmail", "cvm-vpopmail"],
)
def test_the_manual_page_has_every_variable_with_its_default(name: str, defaults: dict[str, str]) -> None:
    text = page(f"man/{name}.8").replace("\\-", "-")
    assert dict(re.findall(r"^\.It Ev (\S+)\nDefault: (.*)\.$", text, re.MULTILINE)) == defaults


def test_the_pages_on_vpopmail_name_every_variable_and_none_that_nobody_reads() -> None:
    text = page("vpopmail.md") + page("vpopmail-sql.md")
    named = set(re.findall(r"\b(?:CVM_)?VPOPMAIL_[A-Z_]+\b", text))
    read = {name for path in VPOPMAIL.rglob("*.py") for name in re.findall(r'"(\w+)"', path.read_text())}
    assert set(DEFAULTS_OF_VPOPMAIL) <= named <= read


# -- reasons ----------------------------------------------------------------------------------------

REASON_AT = {"Unavailable": 0, "Trouble": 0, "Answer": 1, "Event": 5, "Kept": 1, "raise_if_temporary": 1}
"""Which argument of which call is a reason word."""


def words(node: ast.expr, function: ast.AST) -> Iterator[str]:
    """The words that an argument can be: itself, either side of a condition, or what a local name was given."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, str)
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from words(node.body, function)
        yield from words(node.orelse, function)
    elif isinstance(node, ast.Name):
        for inner in ast.walk(function):
            if isinstance(inner, ast.Assign) and ast.unparse(inner.targets[0]) == node.id:
                yield from words(inner.value, function)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get") and len(node.args) == 2:
        yield from words(node.args[1], function)


def listed(tree: ast.Module) -> Iterator[str]:
    """The words in a module's table of reasons, by what another program says."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_REASONS":
            assert isinstance(node.value, ast.Dict)
            for value in node.value.values:
                yield from words(value, tree)


def reasons_in(source: str) -> Iterator[str]:
    """The reason words that a module can give."""
    tree = ast.parse(source)
    yield from listed(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions or [tree]:
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            at = REASON_AT.get(ast.unparse(call.func).rpartition(".")[2])
            if at is not None and not any(isinstance(argument, ast.Starred) for argument in call.args):
                given = {keyword.arg: keyword.value for keyword in call.keywords}.get("reason")
                given = call.args[at] if len(call.args) > at else given
                assert given is not None, ast.unparse(call)
                yield from words(given, function)


def test_reasons_are_found_however_they_are_written() -> None:
    source = """
_REASONS = {1: "f", 2: "g"}
def f(x):
    reason = "b" if x else "c"
    raise Unavailable("a")
    return Answer(Verdict.REJECT, reason), answer.Answer(Verdict.PASS, reason="d"), Kept(path, "e", make), Event(*x)
def g(x):
    return Trouble(_REASONS.get(x, "h"), "detail")
"""
    assert set(reasons_in(source)) == {"a", "b", "c", "d", "e", "f", "g", "h"}


def test_every_reason_word_is_explained_and_no_stale_one() -> None:
    sources = [path.read_text() for package in (PACKAGE, VPOPMAIL) for path in package.rglob("*.py")]
    in_code = {word for source in sources for word in reasons_in(source)}
    section = page("operating.md").partition("### Reason words\n")[2].partition("\n### ")[0]
    in_page = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert set(in_page) == in_code
    assert len(in_page) == len(set(in_page)) + 1, "only dotqmail stands in two tables"


def messages_in(source: str) -> Iterator[str]:
    """What a module says in lines of its own: the longest constant part of each message."""
    for node in ast.walk(ast.parse(source)):
        said: ast.expr | None = None
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".line", "_warn", ".say", "._say")):
            said = node.args[-1]
        elif isinstance(node, ast.Yield):
            said = node.value
        if isinstance(said, ast.JoinedStr | ast.Constant):
            parts = said.values if isinstance(said, ast.JoinedStr) else [said]
            yield max((str(part.value) for part in parts if isinstance(part, ast.Constant)), key=len).strip(" :,;")


def test_every_message_of_the_server_is_explained() -> None:
    said = [
        message
        for name in ("cli.py", "serve.py", "shadow.py", "log.py")
        for message in messages_in((PACKAGE / name).read_text())
    ]
    text = re.sub(r"\s+", " ", page("operating.md"))
    assert len(said) > 10
    assert not [message for message in said if message not in text]


def test_every_message_of_vpopmail_is_explained() -> None:
    sources = [VPOPMAIL / name for name in ("lookup.py", "notices.py", "tables/cache.py")]
    said = [message for source in sources for message in messages_in(source.read_text()) if message]
    assert len(said) > 3
    text = re.sub(r"\s+", " ", page("operating.md"))
    assert not [message for message in said if message not in text]


# -- pages ------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked to by."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))
def test_scripts_and_services_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"(?<![\w/.])(?:scripts|contrib|\.ci)/[\w./+-]*\w", path.read_text()))
    assert not [name for name in named if not (TOP / name).exists()]


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (TOP / "README.md").read_text()))
    assert linked >= {str(path.relative_to(TOP)) for path in (*DOCS.glob("*.md"), *MAN_PAGES)}


def test_the_readme_has_a_place_for_the_figures() -> None:
    assert re.search(r"^## .*\n(?:.*\n)*?<!-- figures -->\n(?:.*\n)*?<!-- /figures -->$", _readme(), re.MULTILINE)


def _readme() -> str:
    return (TOP / "README.md").read_text()


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


def installed(folder: Path) -> None:
    """The example of docs/plugins.md as if it had been installed into `folder`."""
    text = page("plugins.md")
    (source,), (project,) = blocks(text, "python"), blocks(text, "toml")
    (folder / "deliver_to_db.py").write_text(source)
    about = tomllib.loads(project)["project"]
    info = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in about["entry-points"].items()
        )
    )


@pytest.mark.root
def test_the_example_plug_in_judges_what_it_says_it_does(host: Host) -> None:
    line = b"|/usr/local/bin/deliver-to-db\n"
    host.file("home/joe/.qmail-default", b"# all mail\n" + line, uid=5001, gid=5001)
    host.file("home/joe/.qmail-both", line + b"./Maildir/\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-other", b"|/usr/bin/true\n", uid=5001, gid=5001)
    database = host.file("mailboxes.cdb", cdb_bytes([(b"mail", b"")]))
    with a_folder() as folder:
        installed(folder)
        with serving(host, PYTHONPATH=str(folder), DELIVER_TO_DB=str(database)) as server:
            assert f"cvm-qmail: deliver-to-db: mailboxes in {database}" in server.errors.read_text()
            assert server.ask("joe-Mail").code == 0
            assert dict(server.ask("joe-mail").facts)[Fact.USERNAME] == b"joe"
            assert dict(server.ask("joe-spam").facts) == {Fact.OUTOFSCOPE: b"0"}
            assert server.ask("joe-both").code == 0, "something else takes the message too"
            assert server.ask("joe-other").code == 0, "not a file of deliver-to-db"
            assert f"- joe-spam@example.org joe db-no-mailbox {database}" in server.logged("joe-spam")
            database.chmod(0o600)
            assert server.ask("joe-mail").code == 4, "its user may not read the database"
            database.unlink()
            assert server.ask("joe-mail").code == 4
            assert "db-missing" in server.logged("db-missing")
        with serving(host, PYTHONPATH=str(folder), DELIVER_TO_DB=str(database), CVM_QMAIL_PROGRAMS="") as server:
            assert server.ask("joe-spam").code == 0, "plug-ins can be switched off"


@pytest.mark.root
def test_the_example_plug_in_says_at_start_what_is_wrong_with_its_setting(host: Host) -> None:
    with a_folder() as folder:
        installed(folder)
        with serving(host, wait=False, PYTHONPATH=str(folder), DELIVER_TO_DB="mailboxes.cdb") as server:
            assert server.process.wait(20) == 100
            assert "DELIVER_TO_DB" in server.errors.read_text()


# -- what docs/operating.md promises of a server without rights ------------------------------------------


@pytest.mark.root
@pytest.mark.peer("setpriv")
def test_a_server_that_may_not_look_as_others_never_refuses_what_it_cannot_see(host: Host) -> None:
    host.user("closed", 5004, ".qmail-x", mode=0o700)
    host.folder("behind", mode=0o710, gid=NOFILES)  # qmailp can search it, the server cannot
    host.folder("behind/bob", uid=5005, gid=5005)
    host.passwd("closed:x:5004:5004::{root}/home/closed:/bin/sh", "bob:x:5005:5005::{root}/behind/bob:/bin/sh")
    run = host.folder("run", uid=65534, gid=65534)
    with serving(host, program=_without_rights(host), path=run / "socket") as server:
        assert server.ask("closed-x").code == 4
        assert server.ask("bob").code == 4


def _without_rights(host: Host) -> Path:
    """cvm-qmail as nobody."""
    program = host.root / "as-nobody"
    program.write_text(f'#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups {CVM_QMAIL} "$@"\n')
    program.chmod(0o755)
    return program
