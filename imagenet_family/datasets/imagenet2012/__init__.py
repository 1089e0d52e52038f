"""The imagenet2012 dataset, as a folder of builder, description, citation and tags."""
