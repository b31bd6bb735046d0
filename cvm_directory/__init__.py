"""A directory of addresses in a database: mailbox hosts publish it, MX hosts answer from it (`cvm-directory`)."""
