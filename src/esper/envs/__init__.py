"""Environments for the learner: batched, reset automatically, with terminated and truncated kept apart."""
