"""Benchmarks of the loss terms."""
