"""Figures from rows and arrays, a file per subject. Every function returns a matplotlib figure and shows nothing."""
