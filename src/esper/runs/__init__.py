"""One run in a folder: its settings, its session, its checkpoints, its resume."""
