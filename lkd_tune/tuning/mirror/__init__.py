"""Copying a run folder to an object store, and files between nodes, while a search runs."""
