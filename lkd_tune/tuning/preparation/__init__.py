"""The preparation of a search: teacher, stored targets, latencies, and points to start with."""
