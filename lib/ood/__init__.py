"""Detectors of outliers: from the energies of all layers, from the last layer, and with an early exit."""
