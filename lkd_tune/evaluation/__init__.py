"""Scoring a model on a task, and comparing two."""
