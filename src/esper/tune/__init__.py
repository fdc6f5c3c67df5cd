"""Search for settings: trials of runs as in a sweep, chosen by Optuna."""
