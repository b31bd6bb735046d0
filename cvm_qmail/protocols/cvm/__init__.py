"""The CVM protocol."""
