"""The server: a supervisor and its workers."""
