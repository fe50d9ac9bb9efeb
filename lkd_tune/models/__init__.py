"""Teachers and students as modules: loading, selecting layers, pruning, trimming, measuring."""
