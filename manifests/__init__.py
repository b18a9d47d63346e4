"""What the two programs share: the manifest's contract, and how the bytes of an image file are read."""
