"""What knows no VAE: text forms of values, randomness by counters, files, progress, signals, devices."""
