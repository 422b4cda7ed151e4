"""`python -m lazymlx.serve`."""

import sys

from ..cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))
