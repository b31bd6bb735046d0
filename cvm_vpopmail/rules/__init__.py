"""What vpopmail decides.  Pure: tables in, answers out; no os, socket, clock, logging."""
