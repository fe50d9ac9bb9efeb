"""Many distillations: a search from its preparation to its best students."""
