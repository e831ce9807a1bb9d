"""Neural networks: layers, and bodies that map features to features."""
