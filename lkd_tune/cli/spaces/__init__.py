"""The commands about space files."""
