"""A set and what was predicted of it -> what is amiss with the data: augmentation that shows, shift, shortcuts."""
