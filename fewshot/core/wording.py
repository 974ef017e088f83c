"""How numbers of things are worded."""


def counted(count: int, thing: str, things: str = "") -> str:
    """1 file, 2 files; `things` where the plural takes more than an s."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"
