"""Adversarial attacks on images in [0, 1]: within a ball, and for the smallest change."""
