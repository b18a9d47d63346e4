"""DICOM: the file with no more memory than it needs, the values that are shown, the picture."""
