"""Training of networks: losses, schedules, the loop, the folder of a run."""
