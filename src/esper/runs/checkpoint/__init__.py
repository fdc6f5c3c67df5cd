"""State on disk: safetensors and JSON, never pickle; atomic, checksummed, kept in number. Knows nothing of PPO."""
