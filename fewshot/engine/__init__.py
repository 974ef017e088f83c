"""Training and evaluation of objects: nothing here knows a name, a plugin or a folder of runs."""
