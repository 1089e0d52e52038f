"""ImageNet-2012 and the datasets derived from it, as fast drop-in TFDS builders."""
