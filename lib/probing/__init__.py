"""Linear probes on the features of a frozen network's layers."""
