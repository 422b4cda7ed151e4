"""Read a document and ask about it, in a window.

python examples/macos_app [--model M] [FILE]
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from controller import Controller

from lazymlx.demo import MODEL

parser = argparse.ArgumentParser(prog="macos_app", description="Read a document and ask about it, in a window.")
parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="text, Markdown, PDF or .lazydoc")
parser.add_argument("--model", metavar="M", default=str(MODEL), help="folder or Hub name; default: the embedded model")
parser.add_argument("--tk", action="store_true", help="Tk's window, also where Cocoa's could be shown")
args = parser.parse_args()

if sys.platform == "darwin" and find_spec("AppKit") and not args.tk:
    from appkit_front import run
else:
    from tk_front import run
controller = Controller(args.model)
try:
    run(controller, args.file)
finally:  # also where there is no screen to show a window on
    controller.close()
