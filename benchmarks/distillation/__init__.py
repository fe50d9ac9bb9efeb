"""Benchmarks of a distillation: seconds and memory of its steps."""
