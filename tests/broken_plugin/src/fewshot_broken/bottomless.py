"""Calls itself without end."""


def bottomless():
    bottomless()


bottomless()
