"""A list of images in, its rows as text and the files that they name out; what the rows mean is each program's own."""
