"""Environments as pure batched functions in torch: all in one tensor, on any device, under any compiler."""
