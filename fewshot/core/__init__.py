"""The words that everything speaks: options, components, interfaces, draws, files. No MLX."""
