"""cvmctl bench: load-test a module."""
