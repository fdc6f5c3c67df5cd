"""A small network that grows while it is trained: modules are planted into its slots, trained, and kept or culled.

`esper/Growth-v0`. One step is one epoch of the network, the host. See docs/growth.md.
"""
