"""Nearest-category generalisation: predictions against the label of the nearest training image. Yang et al., TMLR 2023."""
