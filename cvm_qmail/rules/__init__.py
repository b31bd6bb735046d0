"""The rules.  Pure functions: tables in, answers out; no os, socket, clock or logging."""
