"""What every package uses: errors in one line, cores, seeds, signals."""
