"""From names to results on disk: configurations, runs, searches, studies."""
