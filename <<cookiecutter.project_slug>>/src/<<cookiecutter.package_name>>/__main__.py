"""``python -m`` this package is the same as its console script."""

from .cli import main

main()
