"""The documents: `python -m docs` makes their generated parts and the site."""
