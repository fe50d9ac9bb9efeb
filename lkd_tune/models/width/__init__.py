"""The width of models: what each dimension of a weight counts, which parts matter, pruning."""
