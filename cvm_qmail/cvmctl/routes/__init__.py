"""cvmctl routes: a file of routes, and the modules it names."""
