"""A network of one's own as a backbone."""
