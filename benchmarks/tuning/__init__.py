"""Benchmarks of the search: how soon it is done, and what it costs."""
