"""How requests and responses are written on the wire: bytes in, bytes out, no I/O."""
