"""One distillation, as a library that needs no Ray: `for measurement in distill(spec): ...`."""
