"""The imagenet2012_real dataset, as a folder of builder, description, citation and tags."""
