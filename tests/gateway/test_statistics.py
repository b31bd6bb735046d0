"""Counters: bounded, and what is shown of them."""

from __future__ import annotations

from cvm_qmail.gateway import metrics
from cvm_qmail.gateway.statistics import NAMES, SECONDS, Backend, Statistics
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

NO = Result(Outcome.REJECTED, "no-mailbox")
YES = Result(Outcome.ACCEPTED, "mailbox")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_each_of_the_last_seconds_is_kept_apart() -> None:
    clock = Clock()
    statistics = Statistics(clock)
    for second in range(SECONDS + 50):
        clock.now = 1_000_000.0 + second
        for n in range(second % 3):
            statistics.answered("policy", YES if n else NO, b"ours.test", 0.01 * (n + 1))
    seconds = statistics.snapshot([], [], 0).seconds
    assert seconds[0].at > clock.now - SECONDS
    assert [second.at for second in seconds] == sorted(second.at for second in seconds)
    assert {second.outcomes["rejected"] for second in seconds} == {1}
    last = next(second for second in reversed(seconds) if second.outcomes["accepted"])
    assert (round(last.latency, 6), last.longest) == (0.015, 0.02)


def test_a_second_that_is_long_gone_is_not_shown() -> None:
    clock = Clock()
    statistics = Statistics(clock)
    statistics.answered("policy", YES, None, 0.1)
    clock.now += SECONDS
    assert statistics.snapshot([], [], 0).seconds == []
    assert statistics.snapshot([], [], 0).outcomes == {"accepted": 1}


def test_many_domains_leave_the_frequent_ones_on_top() -> None:
    statistics = Statistics(Clock())
    for n in range(20 * NAMES):
        statistics.answered("policy", NO, b"D%d.test" % n, 0.1)
        statistics.answered("policy", NO, b"Often.Test", 0.1)
    domains = statistics.snapshot([], [], 0).domains
    assert domains[0][0] == "often.test"
    assert len(statistics._domains) == NAMES


def test_a_module_that_makes_words_up_does_not_fill_the_memory() -> None:
    statistics = Statistics(Clock())
    for n in range(3 * NAMES):
        statistics.answered("policy", Result(Outcome.REJECTED, f"w-{n}"), None, 0.1)
    snapshot = statistics.snapshot([], [], 0)
    assert len(snapshot.requests) == NAMES + 1
    assert snapshot.reasons[0] == ("other", 2 * NAMES)
    assert sum(snapshot.requests.values()) == 3 * NAMES


def test_metrics_are_sums_of_what_happened() -> None:
    statistics = Statistics(Clock())
    for seconds in (0.0001, 0.003, 0.003, 99.0):
        statistics.answered("policy", YES, None, seconds)
    statistics.happened("malformed-policy")
    backend = Backend('cvm-local:/a"b\\c\n', up=False, since=1.0, detail="", asking=2, failures={"backend-down": 3})
    shown = metrics.page("", statistics.snapshot([backend], [(b"192.0.2.1", 5.0)], 7))
    lines = shown.body.decode().splitlines()
    assert 'cvm_gateway_request_seconds_bucket{listener="policy",le="0.0005"} 1' in lines
    assert 'cvm_gateway_request_seconds_bucket{listener="policy",le="0.005"} 3' in lines
    assert 'cvm_gateway_request_seconds_bucket{listener="policy",le="10.0"} 3' in lines
    assert 'cvm_gateway_request_seconds_bucket{listener="policy",le="+Inf"} 4' in lines
    assert 'cvm_gateway_request_seconds_count{listener="policy"} 4' in lines
    assert 'cvm_gateway_backend_up{module="cvm-local:/a\\"b\\\\c\\n"} 0' in lines
    assert 'cvm_gateway_events_total{event="malformed-policy"} 1' in lines
    assert "cvm_gateway_connections 7" in lines
    assert "cvm_gateway_throttled 1" in lines
