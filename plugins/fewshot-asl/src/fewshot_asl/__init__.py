"""The ASL-alphabet Siamese experiment as a plugin bundle for fewshot."""
