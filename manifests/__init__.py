"""What the two programs share: the manifest's contract, and how the bytes of an image file are read."""

MAX_PIXELS = 178_956_970  # as Pillow: 512 MB at 3 bytes a pixel; an image that declares more is refused undecoded
