"""What delivery programs print when they bounce, as qmail-send logs it."""

from __future__ import annotations

import pytest

from cvm_qmail.cvmctl.audit.bounces import bounce_of
from cvm_qmail.reasons import Rejection

MISSING, FULL, DISABLED = Rejection.MISSING, Rejection.FULL, Rejection.DISABLED


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (b"Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/", MISSING),
        (b"Sorry,_no_mailbox_here_by_that_name._vpopmail_(#5.1.1)/", MISSING),
        (b"sorry,_no_mailbox_here_by_that_name_(#5.1.1_-_chkuser)/", MISSING),
        (b"This_address_no_longer_accepts_mail./", MISSING),
        (b"Invalid_or_unknown_virtual_user_'nobody'/", MISSING),
        (b"User_doesn't_exist:_nobody@example.org/", MISSING),
        (b"Invalid_user_specified./", MISSING),
        (b"user_is_over_quota/", FULL),
        (b"domain_is_over_quota/", FULL),
        (b"Recipient's_mailbox_is_full,_message_returned_to_sender._(#5.2.2)/", FULL),
        (b"Quota_exceeded_(mailbox_for_user_is_full)/", FULL),
        (b"account_is_locked_email_bounced/", DISABLED),
        (b"Mailbox_disabled/", DISABLED),
        (b"No_such_directory/", None),
        (b"", None),
        (b"///", None),
    ],
)
def test_a_report_says_what_is_wrong_with_the_mailbox(report: bytes, kind: Rejection | None) -> None:
    assert bounce_of(report) is kind


def test_only_the_program_that_bounced_counts() -> None:
    assert bounce_of(b"Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/mailing_list_closed/") is None
    assert bounce_of(b"sorting.../Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/") is MISSING


def test_a_long_report_is_looked_at_from_its_end() -> None:
    assert bounce_of(b"x" * 100_000 + b"/user_is_over_quota/") is FULL
    assert bounce_of(b"user_is_over_quota/" + b"x" * 100_000) is None
