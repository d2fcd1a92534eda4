"""What passes through a layer: read in one pass for all layers, kept on disk, compared."""
