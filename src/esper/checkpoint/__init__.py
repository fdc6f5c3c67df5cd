"""Tensors and metadata on disk: safetensors and JSON, never pickle. Knows nothing of PPO."""
