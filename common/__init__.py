"""What both programs need and neither owns: images, the process pool, the console, HTML pages."""

__version__ = "0.1.0"  # of both programs
