"""Stitching: one network continues from the representation of another. Balogh & Jelasity, AAAI 2025.

`layer` is the stitch, `least_squares` fits it by direct matching, `train` by the task loss, `grid` runs all pairs of layers
in one pass; `detector` and its kin ask whether what arrives is in distribution there.
"""
