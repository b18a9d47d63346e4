"""What makes a picture that is probably not what was meant: texts for people, and to count by."""

FEW_BITS = "samples use a quarter or less of the range that they declare"
TRANSPARENT = "mostly transparent, and so mostly black"
NEARLY_BLACK = "nearly black"
WARNINGS = (FEW_BITS, TRANSPARENT, NEARLY_BLACK)
