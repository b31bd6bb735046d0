"""cvmctl audit: compare qmail-send's logs with today's verdicts."""
