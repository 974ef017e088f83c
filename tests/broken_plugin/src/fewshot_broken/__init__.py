"""One module for each way in which a plugin can fail, and some that do not."""
