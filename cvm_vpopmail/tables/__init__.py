"""vpopmail's tables.  Nothing is ever written."""
