"""From a plan to a dataset: staging, checks before the hours are spent, and who does the work."""
