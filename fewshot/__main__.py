"""`python -m fewshot` is the command `fewshot`."""

from .cli import main

if __name__ == "__main__":
    main()
