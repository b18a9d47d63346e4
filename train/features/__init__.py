"""Images in, activations of the frozen layers out: computed once an image, kept by its checksum."""
