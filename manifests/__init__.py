"""The contract between the two programs: manifests, their cards, and what they say of a set."""
