"""Omniglot (Lake et al. 2015) for fewshot: its characters and its official one-shot runs."""
