"""Copying a run's folder to an object store, and files between nodes, while a search runs."""
