"""Networks with published weights as backbones for fewshot."""
