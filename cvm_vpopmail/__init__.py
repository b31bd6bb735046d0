"""vpopmail support: delivery checks and authentication."""
