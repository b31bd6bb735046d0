"""The meaning of a request, and its answer: no protocol, no socket."""
