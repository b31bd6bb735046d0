"""What proves an account; that nothing of it is ever shown; and what an unknown account costs."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import hmac
import pickle
import pprint
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from logins import system

from cvm_qmail import passwords
from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.passwords import StoredPassword, TimingEqualizer
from cvm_qmail.plugin import Challenge, Password, Proof
from cvm_vpopmail.settings import SERVICES

MD5 = b"$1$saltsalt$2UdByIBJS5/lBJ.skNN3J1"  # Correct1Horse
DES = b"abohqbqzB/3zg"  # Correct1Horse, of which it sees Correct1
RIGHT = Password(b"Correct1Horse")
WRONG = Password(b"Correct1Horsf")


def is_right(hashed: bytes, password: bytes = RIGHT.password) -> bool:
    return StoredPassword(hashed, b"").verify(Password(password), "smtp")


# -- the corpus ---------------------------------------------------------------------------------------


def test_every_hash_of_the_corpus_is_judged_as_vchkpw_judged_it() -> None:
    hashes = system("hashes")
    assert len(hashes.cases) == 331
    assert [case for case in hashes.cases if hashes.says(case) != case.said] == []


def test_every_clear_text_of_the_corpus_too_but_for_a_response_to_no_challenge() -> None:
    clear = system("clear-text")
    assert len(clear.cases) == 107
    for case in clear.cases:
        if isinstance(case.proof, Challenge) and not case.proof.challenge:
            assert clear.says(case) == "wrong"
        else:
            assert clear.says(case) == case.said, case


def test_an_account_without_a_password_never_learns_one() -> None:
    learning = system("learn-passwords")
    differ = [(case.login, case.said) for case in learning.cases if learning.says(case) != case.said]
    assert differ == [(b"new@example.com", "ok"), (b"new@example.com", "ok"), (b"newpop@example.com", "ok")]


# -- passwords ----------------------------------------------------------------------------------------


def test_one_pair_of_braces_in_front_is_no_part_of_the_hash() -> None:
    assert is_right(MD5)
    assert is_right(b"{CRYPT}" + MD5)
    assert is_right(b"{}" + MD5)
    assert is_right(b"{A:B{C}" + MD5)
    assert not is_right(b"{A}{B}" + MD5)
    assert not is_right(b"{A" + MD5)
    assert not is_right(b" {A}" + MD5)


@pytest.mark.parametrize("change", [MD5[:-1], MD5 + b"x", MD5 + b" ", MD5 + b"\n", b" " + MD5, MD5.swapcase()])
def test_a_hash_is_compared_to_the_last_byte(change: bytes) -> None:
    assert not is_right(change)


@pytest.mark.parametrize("hashed", [b"", b"{CRYPT}", b"{}", b"*", b"*0", b"*1", b"!", b"!!", b"x", b"\0" + MD5])
def test_what_is_no_hash_matches_nothing(hashed: bytes) -> None:
    for password in (b"", hashed, b"x", b"*0", b"*1", RIGHT.password):
        assert not is_right(hashed, password)


def test_the_hash_itself_is_no_password() -> None:
    assert not is_right(MD5, MD5)


@pytest.mark.parametrize("password", [b"", b"\0", b"Correct1Horse\0", b"Correct1\0Horse"])
@pytest.mark.parametrize("hashed", [MD5, DES])
def test_no_password_and_one_that_c_cannot_hold_prove_nothing(hashed: bytes, password: bytes) -> None:
    assert is_right(hashed)
    assert not is_right(hashed, password)


def test_the_hash_of_the_empty_password_lets_nobody_in() -> None:
    assert not is_right(b"$1$saltsalt$5Jhcit4zN9UlGiA0txPkO0", b"")


def test_a_stored_hash_ends_at_a_nul_as_it_does_for_vpopmail() -> None:
    assert is_right(MD5 + b"\0x")


def test_a_password_proves_on_every_service() -> None:
    assert all(StoredPassword(MD5, b"").verify(RIGHT, service) for service in SERVICES)


def test_the_clear_text_is_no_password_where_the_hash_is_another() -> None:
    assert not StoredPassword(MD5, WRONG.password).verify(WRONG, "smtp")
    assert StoredPassword(MD5, WRONG.password).verify(RIGHT, "smtp")


# -- challenges ---------------------------------------------------------------------------------------

# RFC 2195, section 2, and RFC 1939, section 7.
CRAM_CLEAR, CRAM_CHALLENGE = b"tanstaaftanstaaf", b"<1896.697170952@postoffice.reston.mci.net>"
CRAM_DIGITS = b"b913a602c7eda7a495b4e6e7334d3890"
CRAM = Challenge(CRAM_CHALLENGE, CRAM_DIGITS, b"CRAM-MD5")
CRAM_STORED = StoredPassword(MD5, CRAM_CLEAR)

APOP = Challenge(b"<1896.697170952@dbc.mtview.ca.us>", b"c4c9334bac560ecc979e58001b3e22fb", b"APOP")
APOP_STORED = StoredPassword(MD5, b"tanstaaf")


@pytest.mark.parametrize("service", SERVICES)
def test_each_algorithm_has_its_services(service: str) -> None:
    assert CRAM_STORED.verify(CRAM, service) == (service in {"smtp", "submission"})
    assert APOP_STORED.verify(APOP, service) == (service == "pop3")


@pytest.mark.parametrize(
    "kind", [b"", b"cram-md5", b"CRAM-MD5 ", b"CRAM-MD5\0", b"CRAM-SHA1", b"PLAIN", b"LOGIN", b"APOP"]
)
def test_the_type_picks_the_algorithm_and_is_exact(kind: bytes) -> None:
    assert not any(CRAM_STORED.verify(CRAM._replace(type=kind), service) for service in SERVICES)


def test_a_response_is_taken_in_three_forms() -> None:
    late = bytes.fromhex("f" + CRAM_DIGITS.decode()[:-1])  # as libcvm 0.97 sends it
    for response in (CRAM_DIGITS, bytes.fromhex(CRAM_DIGITS.decode()), late):
        assert CRAM_STORED.verify(CRAM._replace(response=response), "smtp")
    for wrong in (
        b"",
        CRAM_DIGITS.upper(),
        CRAM_DIGITS[:-1],
        CRAM_DIGITS + b"\0",
        late[:-1],
        b"0" * 32,
        b"f" + CRAM_DIGITS[:-1],
        bytes.fromhex("e" + CRAM_DIGITS.decode()[:-1]),
        b"joe " + CRAM_DIGITS,
    ):
        assert not CRAM_STORED.verify(CRAM._replace(response=wrong), "smtp"), wrong


def test_a_key_of_more_than_a_block_is_hashed_first() -> None:
    """The sixth case of RFC 2202, section 2."""
    text = b"Test Using Larger Than Block-Size Key - Hash Key First"
    response = Challenge(text, b"6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd", b"CRAM-MD5")
    assert StoredPassword(MD5, b"\xaa" * 80).verify(response, "smtp")


def test_a_response_to_no_challenge_or_to_one_that_c_cannot_hold_proves_nothing() -> None:
    for challenge in (b"", b"a\0b"):
        response = hmac.new(CRAM_CLEAR, challenge, "md5").hexdigest().encode()
        assert not CRAM_STORED.verify(Challenge(challenge, response, b"CRAM-MD5"), "smtp")


def test_without_a_hash_or_a_clear_text_no_response_proves() -> None:
    assert not StoredPassword(b"", CRAM_CLEAR).verify(CRAM, "smtp")
    assert not StoredPassword(b"\0" + MD5, CRAM_CLEAR).verify(CRAM, "smtp")
    assert not StoredPassword(MD5, b"").verify(CRAM, "smtp")
    assert StoredPassword(b"*", CRAM_CLEAR).verify(CRAM, "smtp"), "any hash will do: it is not looked at"


@pytest.mark.parametrize("clear", [b"", b"\0" + CRAM_CLEAR])
def test_nobody_gets_in_with_a_response_under_the_empty_password(clear: bytes) -> None:
    cram = hmac.new(b"", CRAM_CHALLENGE, "md5").hexdigest().encode()
    apop = hashlib.md5(CRAM_CHALLENGE).hexdigest().encode()
    assert not StoredPassword(MD5, clear).verify(Challenge(CRAM_CHALLENGE, cram, b"CRAM-MD5"), "smtp")
    assert not StoredPassword(MD5, clear).verify(Challenge(CRAM_CHALLENGE, apop, b"APOP"), "pop3")


def test_a_response_is_no_password_and_a_password_no_response() -> None:
    assert not CRAM_STORED.verify(Password(CRAM_DIGITS), "smtp")
    assert not CRAM_STORED.verify(Challenge(CRAM_CHALLENGE, RIGHT.password, b"CRAM-MD5"), "smtp")
    assert not CRAM_STORED.verify(Challenge(CRAM_CHALLENGE, CRAM_CLEAR, b"CRAM-MD5"), "smtp")


# -- any input ----------------------------------------------------------------------------------------


def is_cheap(hashed: bytes) -> bool:
    """Not of a format that may cost hours."""
    setting = hashed.rpartition(b"}")[2]
    return not setting.startswith((b"$2", b"$5", b"$6", b"$7", b"$y", b"$g", b"$m", b"$s", b"_"))


stored_texts = st.one_of(
    st.binary(max_size=40),
    st.text("${}*!./ab01\0", max_size=20).map(str.encode),
    st.builds(
        lambda before, kept, after: before + MD5[:kept] + after,
        st.binary(max_size=3),
        st.integers(0, 34),
        st.binary(max_size=3),
    ),
).filter(is_cheap)
proofs: st.SearchStrategy[Proof] = st.one_of(
    st.builds(Password, st.binary(max_size=20)),
    st.builds(Challenge, st.binary(max_size=20), st.binary(max_size=40), st.sampled_from([b"CRAM-MD5", b"APOP", b"x"])),
)


@given(stored_texts, st.binary(max_size=20), proofs, st.sampled_from(SERVICES))
@example(MD5, CRAM_CLEAR, CRAM, "smtp")
def test_any_stored_text_says_yes_or_no(hashed: bytes, clear: bytes, proof: Proof, service: str) -> None:
    stored = StoredPassword(hashed, clear)
    says = stored.verify(proof, service)
    assert says is (proof is CRAM)
    assert TimingEqualizer(service).verify(b"d", stored, proof) is says


# -- what cannot be determined ------------------------------------------------------------------------------


WANTS_4_GB = [
    b"$7$IU..../....salt$" + b"x" * 43,
    b"$y$jHT$abcdefghijkl$" + b"x" * 43,
    b"{CRYPT}$gy$jHT$abcdefghijkl$" + b"x" * 43,
]


def test_without_memory_for_a_hash_nothing_can_be_determined() -> None:
    """In a process of its own, which may have 1 GB."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.plugin import Password
from cvm_qmail.passwords import StoredPassword
for hashed in {WANTS_4_GB}:
    try:
        print(StoredPassword(hashed, b"").verify(Password(b"x"), "smtp"))
    except Unavailable as failed:
        print(failed.reason, failed.kind.name, failed.detail)
"""
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout.splitlines() == ["crypt TEMPORARY crypt_r has no memory for this hash"] * 3


def test_a_hash_that_crypt_refuses_with_any_memory_is_no_failure() -> None:
    for hashed in (b"$y$jx!$salt$", b"$7$salt$", b"$y$" + b"x" * 43, WANTS_4_GB[0][:-1], WANTS_4_GB[1] + b"x"):
        assert not passwords._MEMORY_HARD.match(hashed)
    assert StoredPassword(b"$y$$salt$" + b"x" * 43, b"").check(WRONG, "smtp") is None
    for cheap in passwords._CHEAPEST.values():
        assert StoredPassword(cheap, b"").check(WRONG, "smtp") is False, cheap


@pytest.fixture
def no_crypt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host whose libraries have no crypt_r."""

    def missing(name: str | None, **_: object) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    passwords._crypt_r.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    yield
    passwords._crypt_r.cache_clear()


@pytest.mark.usefixtures("no_crypt")
def test_a_host_without_crypt_is_misconfigured() -> None:
    with pytest.raises(Unavailable) as failed:
        is_right(MD5)
    assert (failed.value.reason, failed.value.kind) == ("crypt", Kind.MISCONFIGURED)
    assert CRAM_STORED.verify(CRAM, "smtp"), "no crypt is needed for that"


# -- nothing is shown ---------------------------------------------------------------------------------

HASHED, CLEAR = b"$1$hushsalt$hushdigest", b"hushclear"
HUSH = StoredPassword(HASHED, CLEAR)


def shown(text: str) -> bool:
    return "hush" in text


@pytest.mark.parametrize(
    "show", [repr, str, format, ascii, pprint.pformat, lambda stored: f"{stored!r:>40} {[stored]}"]
)
def test_no_text_shows_it(show: Callable[[object], str]) -> None:
    assert not shown(show(HUSH))


@pytest.mark.parametrize(
    "take",
    [
        pickle.dumps,
        lambda stored: pickle.dumps(stored, 0),
        copy.copy,
        copy.deepcopy,
        lambda stored: stored.__reduce__(),
        lambda stored: stored.__reduce_ex__(4),
        lambda stored: stored.__getstate__(),
        vars,
    ],
)
def test_it_is_neither_copied_nor_taken_apart(take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as failed:
        take(HUSH)
    assert not shown(str(failed.value))


def report(call: Callable[[], object]) -> str:
    """The traceback of a call that fails, with the variables of each function in it."""
    try:
        call()
    except Exception as failure:  # noqa: BLE001  any will do
        return "".join(traceback.TracebackException.from_exception(failure, capture_locals=True).format())
    pytest.fail("it did not fail")


NO_BYTES: Any = "x"
WRONG_TYPES: list[Any] = [
    *(Password(NO_BYTES), Challenge(NO_BYTES, b"y", b"CRAM-MD5"), Challenge(b"x", NO_BYTES, b"CRAM-MD5")),
    None,
]


@pytest.mark.parametrize("proof", WRONG_TYPES)
@pytest.mark.parametrize("equalizer", [None, TimingEqualizer("smtp")])
def test_no_traceback_shows_it_when_a_proof_is_nonsense(proof: Any, equalizer: TimingEqualizer | None) -> None:
    prove = HUSH.verify if equalizer is None else lambda proof, _: equalizer.verify(b"d", HUSH, proof)
    text = report(lambda: prove(proof, "smtp"))
    assert "StoredPassword(...)" in text, "variables are there"
    assert not shown(text)


ODDLY_STORED: list[tuple[Any, Any]] = [("hush", b""), (b"x", "hush"), (None, None)]


@pytest.mark.parametrize("stored", [StoredPassword(*both) for both in ODDLY_STORED])
def test_nor_when_what_is_stored_is(stored: StoredPassword) -> None:
    for proof in (CRAM, APOP, RIGHT):
        if proof is RIGHT and stored._hash == b"x":
            continue
        text = report(lambda proof=proof: stored.verify(proof, "pop3" if proof is APOP else "smtp"))
        assert not shown(text)


@pytest.mark.usefixtures("no_crypt")
def test_nor_when_crypt_is_missing() -> None:
    proof = Password(b"hushpassword")
    text = report(lambda: HUSH.verify(proof, "smtp"))
    assert "Password(...)" in text
    assert not shown(text)


@pytest.mark.parametrize("algorithm", ["_cram_md5", "_apop"])
def test_nor_when_a_digest_cannot_be_made(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise ValueError("unsupported hash type")

    monkeypatch.setitem(sys.modules, "hashlib", Broken())
    text = report(lambda: getattr(HUSH, algorithm)(CRAM.challenge))
    assert "unsupported hash type" in text
    assert not shown(text)


# -- unknown accounts ---------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The settings that crypt is asked for, in order; it answers as ever."""
    crypt_r = passwords._crypt_r()
    settings: list[bytes] = []

    def watched(password: bytes, setting: bytes, data: object) -> object:
        settings.append(setting)
        return crypt_r(password, setting, data)

    monkeypatch.setattr(passwords, "_crypt_r", lambda: watched)
    return settings


KINDS = {
    MD5: b"$1$saltsalt$",
    b"{CRYPT}" + MD5: b"$1$saltsalt$",
    DES: b"ab",
    b"_J9..rasmQkVVhyPvdbQ": b"_J9..rasm",
    b"$2b$04$abcdefghijklmnopqrstuuUL3MoFKGqPO/FtNmVCzq7PPYXE166J.": b"$2b$04$abcdefghijklmnopqrstuu",
    b"$gy$j75$abcdefghijkl$Bpq2T5FUj.iTNkhnVMY8axHY555Ip6XUuyHIgIHjeg2": b"$gy$j75$abcdefghijkl$",
    b"$3$$98b78ca4c413ccf333738d18b191e670": b"$3$$",
    b"$5$rounds=1000$salt$" + b"x" * 43: b"$5$rounds=1000$salt$",
}


@pytest.mark.parametrize("hashed", KINDS)
def test_an_unknown_account_costs_what_the_last_one_of_its_domain_did(hashed: bytes, asked: list[bytes]) -> None:
    equalizer = TimingEqualizer("smtp")
    assert not equalizer.verify(b"example.com", StoredPassword(hashed, b""), WRONG) or hashed == DES
    equalizer.spend(b"example.com", WRONG)
    assert asked[1:] == [KINDS[hashed]]


def test_every_hash_of_the_corpus_has_a_kind_that_crypt_takes() -> None:
    seen = 0
    for (_, name), account in system("hashes").accounts.items():
        secret = account.secret
        assert isinstance(secret, StoredPassword)
        if secret.check(WRONG, "smtp") is not None and not name.startswith(b"broken"):
            kind = secret.kind()
            assert kind, name
            assert len(secret._setting()) - len(kind) >= 11, "the digest is left out"
            assert StoredPassword(kind, b"").check(WRONG, "smtp") is False
            seen += 1
    assert seen > 60


def test_in_a_domain_of_which_nothing_is_known_it_costs_what_vpopmail_makes(asked: list[bytes]) -> None:
    TimingEqualizer("smtp").spend(b"example.com", WRONG)
    assert asked == [passwords._UNKNOWN]
    assert StoredPassword(passwords._UNKNOWN, b"").check(WRONG, "smtp") is False, "crypt takes it"


def test_domains_are_kept_apart(asked: list[bytes]) -> None:
    equalizer = TimingEqualizer("smtp")
    equalizer.verify(b"a.example", StoredPassword(MD5, b""), WRONG)
    equalizer.spend(b"b.example", WRONG)
    assert asked[1:] == [passwords._UNKNOWN]


@pytest.mark.parametrize("hashed", [b"", b"{CRYPT}"])
def test_without_a_hash_crypt_is_not_asked(hashed: bytes, asked: list[bytes]) -> None:
    assert StoredPassword(hashed, b"").check(WRONG, "smtp") is None
    assert asked == []


@pytest.mark.parametrize("hashed", [b"", b"*", b"!" + MD5, b"$9$unknown$" + b"x" * 22])
def test_an_account_that_crypt_refuses_costs_as_much_and_is_no_kind(hashed: bytes, asked: list[bytes]) -> None:
    equalizer = TimingEqualizer("smtp")
    assert not equalizer.verify(b"example.com", StoredPassword(hashed, b""), WRONG)
    assert asked[-1] == passwords._UNKNOWN
    assert equalizer._kinds == {}


def test_a_hash_that_was_never_made_to_the_end_is_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> object:
        raise Unavailable("killed")

    equalizer = TimingEqualizer("smtp")
    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_crypt_r", lambda: killed)
        with pytest.raises(Unavailable):
            equalizer.verify(b"example.com", StoredPassword(b"$6$rounds=999999999$salt$" + b"x" * 86, b""), WRONG)
    assert equalizer._kinds == {}


def test_what_is_remembered_is_bounded_and_who_was_not_seen_for_longest_goes() -> None:
    equalizer = TimingEqualizer("smtp", limit=3)
    for domain in (b"a", b"b", b"c", b"a", b"d"):
        equalizer._remember(domain, b"ab")
    assert set(equalizer._kinds) == {b"c", b"a", b"d"}
    equalizer._remember(b"long", b"$" + b"x" * 1000 + b"$")
    assert set(equalizer._kinds) == {b"c", b"a", b"d"}
    assert TimingEqualizer("smtp")._limit == passwords.DOMAINS


def test_a_response_for_an_unknown_account_costs_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    real = StoredPassword._cram_md5

    def watched(stored: StoredPassword, challenge: bytes) -> object:
        made.append(challenge)
        return real(stored, challenge)

    monkeypatch.setattr(StoredPassword, "_cram_md5", watched)
    equalizer = TimingEqualizer("smtp")
    equalizer.spend(b"example.com", CRAM)
    assert made == [CRAM.challenge]
    assert not equalizer.verify(b"example.com", StoredPassword(MD5, b""), CRAM)
    assert made == [CRAM.challenge, CRAM.challenge], "an account without a clear text costs one too"
    assert equalizer.verify(b"example.com", CRAM_STORED, CRAM)
    assert equalizer._kinds == {}


def test_what_proves_an_account_proves_it_here_too() -> None:
    equalizer = TimingEqualizer("pop3")
    assert equalizer.verify(b"d", StoredPassword(MD5, b""), RIGHT)
    assert not equalizer.verify(b"d", StoredPassword(MD5, b""), WRONG)
    assert equalizer.verify(b"d", APOP_STORED, APOP)
    assert not equalizer.verify(b"d", CRAM_STORED, CRAM)


def test_a_secret_of_another_table_is_asked_itself() -> None:
    class Other:
        def verify(self, proof: Proof, service: str) -> bool:
            return proof is RIGHT and service == "imap"

    assert TimingEqualizer("imap").verify(b"d", Other(), RIGHT)
    assert not TimingEqualizer("imap").verify(b"d", Other(), WRONG)
