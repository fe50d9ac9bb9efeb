"""What a search does before its first trial: teacher, targets, sizes and latencies."""
