"""From files to batches. NumPy only: none of this needs MLX."""
