"""Many distillations: a search from its preparation to its best students.

The folders in import order, each imports only those before it:
samplers, schedulers → study → mirror → progress, trackers → execution → preparation.
Of the files, `session` stands before preparation; `confirm`, `ablation`, `tuner` and `multi_task`
stand above it, in this order.
"""
