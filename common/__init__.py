"""What both programs need and neither owns: images, the process pool, the console, HTML pages."""
