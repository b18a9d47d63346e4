"""Builds class-balanced, physically augmented image sets: scan -> recipe -> plan -> render -> build -> cli."""

__version__ = "0.1.0"
