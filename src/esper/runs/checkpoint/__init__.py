"""State on disk: safetensors and JSON, never pickle; atomic, checksummed, the newest kept. Knows nothing of PPO."""
