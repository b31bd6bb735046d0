"""Recipient validation for qmail hosts, over the CVM protocol."""

__version__ = "1.1.0"
