"""Whether copies and prepared datasets are whole."""
