"""The only code that opens files or databases."""
