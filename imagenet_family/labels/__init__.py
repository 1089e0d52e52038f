"""The 1,000 classes of ILSVRC-2012, and label files that others made for its images."""
