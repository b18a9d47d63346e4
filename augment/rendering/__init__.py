"""Render tasks in, bytes of images out: a pure function of (bytes, variants, settings), run in worker processes."""
