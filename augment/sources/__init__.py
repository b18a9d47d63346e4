"""A source folder in, one table of sources out: source, split, label, group, source_sha256; and what was rejected."""
