"""cvmctl check: look up many addresses."""
