"""How images are kept and found: arrays, folders, archives, downloads; decoded at once or when they are asked for."""
