"""The built-in components, a file a kind; what a plugin would offer."""
