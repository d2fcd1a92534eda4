"""Tables from records alone: over seeds, beside published numbers, on one page."""

# statistical tests of indices of similarity (`lib.tables.similarity_validity`), and the experiments whose records they read
TESTS = ("specificity", "sensitivity")
TESTED = ("similarity", "stitch", "probe")
