"""Activations and settings in, a trained head and tail out, in a run folder that outlasts a kill."""
