"""How subcommands look at the host."""
