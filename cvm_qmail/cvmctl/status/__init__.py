"""cvmctl status: what a server is doing, from its counters."""
