"""cvmctl: for people.  A module per subcommand."""
