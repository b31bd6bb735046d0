"""cvmctl list: list every address that is accepted."""
