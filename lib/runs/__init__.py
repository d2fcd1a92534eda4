"""One run of a script: its command line, its inputs, its record. Nothing here knows a particular experiment."""
