"""Builds class-balanced, physically augmented image sets: sources -> recipe -> plan -> rendering -> storage."""

__version__ = "0.1.0"
