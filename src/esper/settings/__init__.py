"""A run's settings: one declaration becomes flags, files and config.json."""
