"""Going on with a run, in this order.

`point` finds what to go on from, `settings` merges its settings with those that change, which `rules` allow or not, and
`load` brings a new training to where the checkpoint was, which `upgrade` rewrites if it is older.
"""
