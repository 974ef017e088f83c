"""The field's data sets with the literature's class splits, and published recipes, for fewshot."""
