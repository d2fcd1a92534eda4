"""The data sets that the suite knows by name, a file per family."""
