"""Labels and predictions in, numbers with intervals out; NumPy only."""
