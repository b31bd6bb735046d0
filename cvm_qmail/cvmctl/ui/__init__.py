"""What all subcommands print and read."""
