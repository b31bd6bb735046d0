"""vmailmgr's virtual users: lookups and logins, the module `cvm-vmailmgr`."""
