"""Sinks of requests: the log, counters, a shadow."""
