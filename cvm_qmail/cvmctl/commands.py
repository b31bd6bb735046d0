"""The subcommands of cvmctl, by name: known without importing them.

Other packages add theirs: an entry point of ``cvm_qmail.commands`` is a dict like `COMMANDS`, with the whole names of
modules.
"""

from __future__ import annotations

from functools import cache

from cvm_qmail.entry_points import installed

COMMANDS = {
    "ask": ("ask", "ask", "Ask a module one question, and print the facts of its answer."),
    "audit": ("audit.command", "audit", "Compare the deliveries in qmail-send's logs with today's verdicts."),
    "bench": ("bench.command", "bench", "Load-test a module, and report throughput and latency."),
    "check": ("check.command", "check", "Look up many addresses, from a list or a mailbox."),
    "completion": ("completion", "completion", "Print a shell completion script."),
    "decode": ("decode", "decode", "Show a captured request or response, field by field."),
    "lint": ("lint.command", "lint", "Look for mistakes on this host that make mail bounce or wait."),
    "list": ("listing.command", "addresses", "List every address that would be accepted."),
    "log": ("log.command", "log", "Read, filter, follow and sum up a server's log."),
    "metrics": ("metrics.command", "metrics", "Print the counters of a server for Prometheus."),
    "routes": ("routes.command", "routes", "Check a gateway's routes, and ask every module in them."),
    "setup": ("setup.command", "setup", "Show which service fits this host, and write it, in dry-run mode."),
    "status": ("status.command", "status", "Show what a server is doing, from its counters."),
    "top": ("top.command", "top", "Show live what a server is answering."),
    "trace": ("trace.command", "trace", "Explain step by step how qmail treats an address."),
}
"""Name of the subcommand: the module (in this package) and the function that implement it, and what it is for."""


@cache
def commands() -> dict[str, tuple[str, str, str]]:
    """These, and those of the packages that are installed; each module by its whole name."""
    found = {
        name: (f"cvm_qmail.cvmctl.{module}", function, text) for name, (module, function, text) in COMMANDS.items()
    }
    others = installed("cvm_qmail.commands")
    for name in sorted(others):
        found.update({command: what for command, what in others[name]().items() if command not in found})
    return found
