"""Tables from records alone: over seeds, beside published numbers, on one page."""
