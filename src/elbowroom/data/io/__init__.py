"""Reading and writing, by file format."""
