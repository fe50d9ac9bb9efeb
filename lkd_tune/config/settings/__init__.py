"""The blocks of a space file, one module each."""
