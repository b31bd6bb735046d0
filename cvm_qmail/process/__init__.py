"""Processes: fork, deadlines, shared memory."""
