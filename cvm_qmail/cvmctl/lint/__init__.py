"""cvmctl lint: find configuration errors that make mail bounce or wait."""
