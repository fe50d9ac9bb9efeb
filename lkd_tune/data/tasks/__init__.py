"""The kinds of tasks, one module each: labels, losses on labels, predictions and metrics."""
