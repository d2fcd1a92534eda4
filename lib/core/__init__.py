"""What all other packages use: errors, files, randomness, devices. Knows no networks, data sets or records."""
