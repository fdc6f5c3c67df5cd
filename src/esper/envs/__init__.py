"""Environments as the learner wants them: batched, restarting by themselves, honest about how episodes ended."""
