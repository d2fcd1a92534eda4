"""What everything stands on: errors, files, randomness, devices. Nothing here knows of networks, data sets or records."""
