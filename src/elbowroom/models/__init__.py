"""The parts put together: the model, and how it is built from settings and rows."""
