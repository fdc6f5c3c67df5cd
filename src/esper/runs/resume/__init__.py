"""Resuming a run, in this order.

`point` finds the state to resume from, `settings` merges its settings with the changes that `rules` allows, and `load`
restores the checkpoint into a new training, after `upgrade` has converted an older one.
"""
