"""One file per script: its configuration and the function from a configuration to rows. None imports another."""
