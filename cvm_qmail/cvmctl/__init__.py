"""cvmctl, the administrator's command: a directory for each subcommand."""
