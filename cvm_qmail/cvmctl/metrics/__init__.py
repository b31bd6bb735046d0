"""cvmctl metrics: the counters of a server as OpenMetrics."""
