"""`lazymlx cache`: read a document once, and save it for the questions of `lazymlx generate --document`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from ..files import is_stream
from ..units import megabytes
from . import options, values
from .bar import PrefillBar
from .notes import EMBEDDED, notes
from .origin import ReadDocument, called, origin
from .outputs import check_document
from .parser import Once
from .party import decided, speaks
from .prompt import UserPrompt, add_document_flag, count_tokens, is_demo, read_prompt
from .terminal import say

EXAMPLES = """\
examples:
  lazymlx cache --model PATH --prompt-file book.txt -o book.lazydoc
  lazymlx generate --model PATH --document book.lazydoc -q "Who keeps the key?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx cache`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--output", "-o", type=values.path, required=True, metavar="FILE", help="where to save it")
    options.add_overwrite_flag(parser)
    options.add_model_flags(parser.add_argument_group("model"))
    document = parser.add_argument_group("document")
    add_document_flag(document, "a document, or several (default: the embedded one)")
    document.add_argument(
        "--prompt", "-p", action=Once, type=values.utf8, metavar="TEXT", help="the text itself; '-' reads stdin"
    )
    document.add_argument(
        "--system-prompt", type=values.utf8, metavar="TEXT", help="system message of the chat template"
    )
    options.add_prefill_flags(parser.add_argument_group("reading"))
    options.add_lazy_flags(parser.add_argument_group("what to compute"))
    parser.set_defaults(question=None, document=None)


def run(args: argparse.Namespace) -> int:
    """Read and save; whatever can be refused without loading anything is refused first."""
    lazy = options.lazy_config(args)
    prompt = UserPrompt(**decided(args, "prompt", lambda: vars(read_prompt(args))))
    name = options.model_name(args)

    from ..loading.hub import find
    from ..loading.load import load
    from ..loading.stored import find_stored
    from ..session.saved import is_document  # MLX comes with them, which takes a second
    from ..session.session import Session

    decided(args, "output", lambda: _check_output(args, is_document))
    say(f"reading {prompt.name} with {called(args.model)}")
    if args.model is None and not is_demo(args):
        say(EMBEDDED)
    folder = find(name)
    given = options.loading(args)
    model, tokenizer = load(str(folder), lazy, **given)
    calibrated = given["calibration"] is not None or find_stored(folder) is not None
    limits = {"max_memory": args.max_memory, "step_size": options.step_size(args)}
    with Session(model, tokenizer, args.system_prompt, **limits) as session:
        tokens = session.stats.context_tokens + count_tokens(prompt.text, tokenizer)
        for note in notes(tokens, model, None if calibrated else lazy, model.lazy):
            say(note)
        with PrefillBar("reading") as bar:
            session.read(prompt.text, bar)
        tokens = session.stats.context_tokens
        session.save(args.output, origin(args, [ReadDocument(prompt.name, tokens)]))
        if speaks(args):
            say(f"saved {tokens} tokens to {args.output}, {megabytes(args.output.stat().st_size)}")
    return 0


def _check_output(args: argparse.Namespace, is_document: Callable[[Path], bool]) -> None:
    """Refuse a place where a document cannot go."""
    check_document(args.output, "--output", is_document, args.overwrite)
    if is_stream(args.output):
        raise UsageError(f"--output: {args.output} is no file, which a document needs; name one")
