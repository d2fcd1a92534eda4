"""The flags of every script, a file each; free of torch, so that a command line is answered at once."""
