"""Finished runs in, figures and one HTML page out."""
