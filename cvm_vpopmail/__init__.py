"""vpopmail behind qmail: which addresses vdelivermail delivers to, and who may log in."""
