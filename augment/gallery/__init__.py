"""A manifest and its images in, one HTML page out."""
