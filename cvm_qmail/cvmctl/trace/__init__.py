"""cvmctl trace: explain one address."""
