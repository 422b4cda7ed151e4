#!/usr/bin/env python3
"""The speed of lazymlx beside stock mlx-lm: a door to `lazymlx bench` (python scripts/bench_speed.py --help)."""

import sys

from lazymlx.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
