"""Train image classifiers and study their inner representations under distribution shift."""
