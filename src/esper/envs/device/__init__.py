"""Environments as pure batched functions in torch: all copies in one tensor, on any device, under any compiler."""
