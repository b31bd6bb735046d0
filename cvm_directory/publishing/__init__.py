"""cvmctl publish: write what this host would accept into the directory."""
