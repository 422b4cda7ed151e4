"""The door of `python -m lazymlx.chat`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["chat", *sys.argv[1:]]))
