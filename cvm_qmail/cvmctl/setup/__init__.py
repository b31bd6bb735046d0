"""cvmctl setup: what is on this host, and the service that fits it."""
