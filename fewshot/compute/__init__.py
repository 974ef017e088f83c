"""MLX on this machine: fast, right, and knowing nothing of few-shot learning."""
