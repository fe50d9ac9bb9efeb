"""The preparation of a search: teacher, targets, latencies, loss scales, and first points."""
