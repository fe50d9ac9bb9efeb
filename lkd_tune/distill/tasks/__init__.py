"""Tasks: their data and their metrics."""
