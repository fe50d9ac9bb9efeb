"""Searches: many distillations, from the preparation to the best students.

Each folder imports only those before it in this order:
samplers, schedulers → study → mirror → progress, trackers → execution → preparation.
The file `session` comes before preparation. The files `confirm`, `ablation`, `tuner` and
`multi_task` come after it, in this order.
"""
