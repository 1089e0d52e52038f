"""The files that datasets are built from: what is known of them, and how they are fetched."""
