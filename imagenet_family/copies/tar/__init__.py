"""A tar archive: its headers, and the walk from one to the next."""
