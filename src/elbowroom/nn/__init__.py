"""Networks, from features to features."""
