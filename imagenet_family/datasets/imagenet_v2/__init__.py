"""The imagenet_v2 dataset, as a folder of builder, description, citation and tags."""
