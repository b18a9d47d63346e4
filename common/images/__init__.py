"""Bytes of an image file in, pixels out: uint8, gray or RGB, or a reason why not."""

MAX_PIXELS = 178_956_970  # as Pillow: 512 MB at 3 bytes a pixel; an image that declares more is refused undecoded
