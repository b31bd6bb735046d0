"""Recipient validation for qmail hosts, over the CVM protocol."""

__version__ = "1.0.0"
