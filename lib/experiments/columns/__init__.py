"""The definition of every column of every experiment's rows, a file per script; `docs/` shows them."""
