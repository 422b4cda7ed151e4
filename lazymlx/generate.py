"""The door of `python -m lazymlx.generate`; the function `lazymlx.generate` lives in generation.py."""

import sys

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["generate", *sys.argv[1:]]))
