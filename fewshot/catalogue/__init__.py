"""What there is to choose from: kinds, hooks, plugins, names."""
