"""cvmctl log: read, filter, follow and sum up a server's log."""
