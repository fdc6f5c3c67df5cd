"""Typed events of a run, and the sinks that record and show them."""
