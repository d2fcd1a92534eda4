"""Representations: read from all layers in one pass, cached on disk, compared."""
