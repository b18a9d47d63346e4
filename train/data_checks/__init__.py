"""A set and what was predicted of it -> what is amiss with the data: marks of augmentation, shift, shortcuts, leaks, labels."""
