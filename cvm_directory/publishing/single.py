"""One address: what this host says of it now, into the directory, without a look at all others.

Invariants: the time of the domain's publication stays: only a survey renews it.  What sums up the domain is void, so
that the next survey compares its rows.
"""

from __future__ import annotations

from cvm_directory import rules
from cvm_directory.notation import ANYTHING, of_domain, of_local
from cvm_directory.publishing.database import DirectoryDatabase
from cvm_directory.publishing.publication import MARKS, Address
from cvm_directory.publishing.publisher import Policy, Refusal, Refused, refused
from cvm_qmail.cvmctl.listing.exact import judged
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard


def verdict(settings: Settings, local: bytes, domain: bytes, hang_guard: HangGuard | None = None) -> str:
    """What this host says of an address, as the directory spells it."""
    return MARKS[judged(settings, local, domain, hang_guard)]


def publish(database: DirectoryDatabase, policy: Policy, local: bytes, domain: bytes, now: str) -> Refused | str:
    """Writes one verdict; returns what was done, in words.  Raises `Unavailable`.

    `now`: what this host says of the address, from `verdict`.
    """
    name, place = of_local(local.lower(), pattern=False), of_domain(domain.lower(), wild=False)
    if now == rules.UNKNOWN and not policy.include_unknown:
        return refused(place, Refusal.UNKNOWN, unknown=1)
    with database.transaction():
        # Locked before anything is read: MariaDB would go on showing what there was at the first question.
        there = database.published([place]).get(place) if policy.dry_run else database.lock(place)
        if there is None or there.host != policy.host:
            database.take_back()
            return refused(place, Refusal.NOT_PUBLISHED, host=policy.host)
        patterns = [other for other in rules.local_names(local, database.endings(place)) if other.endswith(ANYTHING)]
        found = database.verdicts(place, [name, *patterns])
        old = found.pop(name, None)
        covering = next((found[pattern] for pattern in patterns if pattern in found), rules.REJECTED)
        new = now if now == rules.ACCEPTED or now != covering else None
        if new == old:
            return "nothing has changed"
        if not policy.dry_run:
            database.remove(place, [name])
            if new is not None:
                database.add(place, [Address(name, new)])
            database.touch_domain(place, there.addresses + (new is not None) - (old is not None))
    return "removed" if new is None else "added" if old is None else "changed"
