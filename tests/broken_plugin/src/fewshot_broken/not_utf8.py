"""Is saved in another encoding."""

author = "René"
