"""How bytes arrive.  A transport knows only a callable from bytes to bytes."""
