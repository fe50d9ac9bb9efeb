"""Benchmarks of the data."""
