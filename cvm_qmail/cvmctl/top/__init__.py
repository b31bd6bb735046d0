"""cvmctl top: the counters of a server, live."""
