"""Benchmarks of the method: scores of students by loss terms, weights and layer maps."""
