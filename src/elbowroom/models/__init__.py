"""The model, and how it is built from settings and rows."""
