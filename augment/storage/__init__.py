"""What survives a kill: lock, journal, and an image folder that has its name only when it is whole."""
