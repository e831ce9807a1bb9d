"""Pages and figures from plain values."""
