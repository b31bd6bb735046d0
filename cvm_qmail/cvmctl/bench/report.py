"""What `cvmctl bench` prints of its clients' tally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cvm_qmail.cvmctl.bench.histogram import Row
from cvm_qmail.cvmctl.bench.load import Plan, Tally
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import counted
from cvm_qmail.protocols.cvm.packets import Code

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

BAR = 40
"""Characters of the longest bar."""

WHYS = 5
"""Different reasons for lost answers that are shown."""


def show(plan: Plan, tally: Tally) -> None:
    """Prints it for people."""
    latencies = tally.latencies
    output.line(f"{plan.module}: {counted(plan.clients, 'client')}, {counted(len(plan.questions), 'address')}", "title")
    output.table(
        ("code", "meaning", "answers", "wrong", "late"),
        [
            (str(code), _meaning(code), f"{count:,}", f"{tally.wrong[code]:,}", f"{tally.late[code]:,}")
            for code, count in sorted(tally.answers.items())
        ],
        right=("code", "answers", "wrong", "late"),
    )
    output.line(f"lost: {tally.lost.total():,}", "no" if tally.lost else "")
    for why, count in tally.lost.most_common(WHYS):
        output.line(f"  {count:,}  {why}", "no")
    output.line(f"{counted(tally.requests, 'request')} in {tally.elapsed:.2f} s, {tally.rate:,.0f} answers a second")
    if latencies.count:
        figures = [("least", latencies.least), ("mean", latencies.mean)]
        figures += [(f"{percent:g} %", latencies.percentile(percent)) for percent in PERCENTILES]
        output.table(
            ("latency", ""), [(name, _time(value)) for name, value in [*figures, ("most", latencies.most)]], right=("",)
        )
        rows = list(latencies.rows())
        output.table(("from", "to", "answers", ""), _bars(rows), right=("from", "to", "answers"))


def _meaning(code: int) -> str:
    return Code(code).name if code in set(Code) else ""


def _time(nanoseconds: float) -> str:
    """With three digits that count, and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{nanoseconds:.0f} ns"


def _bars(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    longest = max(row.times for row in rows)
    for start, end, times in rows:
        yield _time(start), _time(end), f"{times:,}", "#" * -(-times * BAR // longest)


def as_object(plan: Plan, tally: Tally) -> dict[str, object]:
    """It for programs."""
    latencies = tally.latencies
    microseconds = {"least": latencies.least, "mean": latencies.mean, "most": latencies.most}
    microseconds |= {f"{percent:g}%": latencies.percentile(percent) for percent in PERCENTILES}
    return {
        "module": plan.module,
        "clients": plan.clients,
        "addresses": len(plan.questions),
        "requests": tally.requests,
        "seconds": round(tally.elapsed, 6),
        "rate": round(tally.rate, 1),
        "answers": dict(sorted(tally.answers.items())),
        "wrong": dict(sorted(tally.wrong.items())),
        "late": dict(sorted(tally.late.items())),
        "lost": dict(tally.lost.most_common(WHYS)) | ({"others": more} if (more := _unnamed(tally.lost)) else {}),
        "microseconds": {name: round(value / 1000, 1) for name, value in microseconds.items()},
        "histogram": [
            {"from": round(start / 1000, 3), "to": round(end / 1000, 3), "answers": times}
            for start, end, times in latencies.rows()
        ],
    }


def _unnamed(lost: Counter[str]) -> int:
    """How many have a reason that is not shown."""
    return lost.total() - sum(count for _, count in lost.most_common(WHYS))
