"""How bytes arrive.  A transport knows a callable from bytes to bytes, and nothing of what it does."""
