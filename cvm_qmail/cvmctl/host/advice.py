"""Advice that several subcommands give, in the same words."""

HUP = "and send qmail-send HUP"
NEWU = "run qmail-newu"
