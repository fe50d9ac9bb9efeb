"""Benchmarks, in a folder for each room of the package; RESULTS.md has their figures."""
