"""The command line; all logic is in other folders."""
