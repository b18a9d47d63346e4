"""Predicted probabilities in, figures with intervals, thresholds and comparisons of runs out."""
