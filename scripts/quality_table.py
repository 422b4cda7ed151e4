#!/usr/bin/env python3
"""Renders the README's quality tables and figures from the runs in scripts/results; --check only compares."""

import argparse
import sys
from pathlib import Path

from lazymlx.errors import LazyMLXError
from lazymlx.eval.readme import Readme

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything is out of date")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "scripts" / "results")
    args = parser.parse_args()
    try:
        readme = Readme(args.readme, args.results)
        outdated = readme.outdated()
        if outdated and not args.check:
            args.readme.write_text(readme.rendered(draw=True), encoding="utf-8")
    except LazyMLXError as error:
        print(f"quality_table: error: {error}", file=sys.stderr)
        return error.exit_code
    for what in outdated:
        print(f"quality_table: {what}: {'out of date' if args.check else 'rendered'}", file=sys.stderr)
    return int(bool(outdated) and args.check)


if __name__ == "__main__":
    sys.exit(main())
