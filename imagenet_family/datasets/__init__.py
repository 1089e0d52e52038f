"""The builders: what they share, what the ILSVRC archives hold, and a folder for each dataset."""
