"""Classifiers put to use: kept in a file, asked, shown, exported, served."""
