"""Naive second opinions on the mathematics, from the papers, in NumPy float64. Nothing here imports surefoot."""
