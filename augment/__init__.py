"""Builds class-balanced, physically augmented image sets: sources -> recipe -> plan -> rendering -> storage.

import augment

built = augment.build("even", "data/chest_xray")
built.place.manifest  # manifests/even.csv
"""

from augment.api import build, dry_run

__all__ = ["build", "dry_run"]
