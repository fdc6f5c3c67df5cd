"""What every room stands on: errors in one line, cores, signals."""
