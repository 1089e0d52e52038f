"""Datasets as WebDataset tars, and checks of these."""
