"""The one place where the steps of a request are put together.

    request bytes -> answer cache -> CVM protocol -> service -> module (lookup, or login)
                                          |                        |
                  response bytes <--------+                      Tables
                         |
                       sinks: log, counters, shadow

Used by the server's workers, by command mode, and by `cvmctl trace`.

Invariants: `Tables` is told of each request once, here, before anything is looked up.  The cache comes before the
parser: a repeated request costs no parsing.  The sinks get every request, parsed or malformed; what they have not yet
written is written before a lookup reads a path where it may hang.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cvm_qmail.answer import Answer, Recipient
from cvm_qmail.plugin import Lookup, Module
from cvm_qmail.protocols.cvm.responder import responder
from cvm_qmail.service.events import Sink, Sinks
from cvm_qmail.service.service import DryRun, Service, service
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

Respond = Callable[[bytes], bytes]
"""From the bytes of a request to those of its response; never raises."""


def make_responder(tables: Tables, module: Module, settings: Settings, sinks: Sequence[Sink]) -> Respond:
    """Makes the function that answers requests, once in each process that answers, after the fork.

    `module` is made from these `tables`.
    """
    sink = Sinks(sinks)
    secret = settings.lookup_secret
    exchange = responder(make_service(tables, module, settings), secret)
    arrived, begin = tables.arrived, tables.begin
    report, flush = sink.request, sink.flush
    tables.before_risk = flush
    if not (tables.lasting and module.repeatable and secret is not None):

        def respond_once(packet: bytes) -> bytes:
            flush()
            began = arrived()
            begin(cacheable=False)
            response, event, _ = exchange(packet, began)
            if event is not None:
                report(event)
            return response

        return respond_once

    from cvm_qmail.service.answer_cache import AnswerCache, Cached  # command mode must not pay for it

    cache = AnswerCache(tables)
    repeat, expected, cached_for, keep = sink.repeat, cache.expects, cache.get, cache.put

    def respond(packet: bytes) -> bytes:
        began = arrived()
        cached = cached_for(packet)
        if cached is not None:
            repeat(cached.token, began)
            return cached.response
        request = begin(cacheable=expected(packet))
        response, event, repeatable = exchange(packet, began)
        if event is not None:
            token = report(event)
            if repeatable:
                keep(packet, Cached(response, token), request)
        return response

    return respond


def make_lookup(tables: Tables, module: Module) -> Lookup:
    """The module's lookup, each call a separate request: for callers that look up many addresses.

    The result raises `Unavailable`.
    """

    def lookup(recipient: Recipient) -> Answer:
        tables.request(cacheable=False)
        return module.lookup(recipient)

    return lookup


def make_service(tables: Tables, module: Module, settings: Settings) -> Service:
    """The steps that know no protocol, for callers that have a query rather than a packet.

    The caller calls `Tables.request` first.
    """
    looks_up = settings.lookup_secret is not None
    return service(module, looks_up=looks_up, dry_run=_dry_run(tables, settings))


def _dry_run(tables: Tables, settings: Settings) -> DryRun | None:
    if not settings.dry_run:
        return None
    from cvm_qmail.service.dry_run import dry_run_facts  # command mode must not pay for it

    return dry_run_facts(tables, settings)
