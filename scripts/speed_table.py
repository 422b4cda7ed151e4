#!/usr/bin/env python3
"""Renders the README's speed tables and figures from the stored runs in scripts/results, or with --check finds out
whether they are what those runs say. Which run a block shows stands in its marker; see lazymlx/bench/readme.py."""

import argparse
import sys
from pathlib import Path

from lazymlx.bench.readme import Readme
from lazymlx.errors import LazyMLXError

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if something is outdated")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="default: the project's")
    parser.add_argument("--results", type=Path, default=ROOT / "scripts" / "results", help="default: scripts/results")
    args = parser.parse_args()
    try:
        readme = Readme(args.readme, args.results)
        if not args.check:
            args.readme.write_text(readme.rendered(draw=True), encoding="utf-8")
            return 0
        outdated = readme.outdated()
    except LazyMLXError as error:
        print(f"speed_table: {error}", file=sys.stderr)
        return error.exit_code
    for name in outdated:
        print(f"speed_table: {name} is not what the stored runs say; run scripts/speed_table.py", file=sys.stderr)
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
