"""Files of runs and policies: opened safely, tensors beside JSON, trees of states."""
