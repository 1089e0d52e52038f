"""The imagenet2012_multilabel dataset, as a folder of builder, description, citation and tags."""
