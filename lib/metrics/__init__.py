"""Pure functions from arrays to numbers; each docstring gives shapes, range, direction and source."""
