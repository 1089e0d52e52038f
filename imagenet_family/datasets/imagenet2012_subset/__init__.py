"""The imagenet2012_subset dataset, as a folder of builder, description, citation and tags."""
