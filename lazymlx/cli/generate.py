"""`lazymlx generate`: one prompt, one answer, and what it cost. Takes mlx_lm.generate's flags, and more.

Without any arguments it shows what lazymlx is: the embedded model reads the embedded document and answers a question,
lazily and densely, side by side.
"""

import argparse
from typing import TYPE_CHECKING

from ..config import LazyConfig
from ..errors import UsageError
from ..files import write_text
from . import options, values
from .bar import PrefillBar
from .notes import DEMO, EMBEDDED, notes
from .origin import called, own_model
from .outputs import check_page, check_statistics, write_statistics
from .party import decided, speaks
from .prompt import UserPrompt, add_prompt_flags, count_tokens, encode_prompt, is_demo, read_prompt
from .terminal import EXIT_INTERRUPTED, say, write

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from ..explain import Trace
    from .answering import Answer

EXAMPLES = """\
examples:
  lazymlx generate                                            the embedded model, document and question
  lazymlx generate --model PATH --prompt-file book.txt -q "Who keeps the key?"
  cat book.txt | lazymlx generate --model PATH -p - -q "Who keeps the key?" > answer.txt
  lazymlx generate --model PATH --document book.lazydoc -q "Who keeps the key?"
  lazymlx generate --model PATH --prompt-file book.txt --schedule 16:0.5,24:0.2 --compare
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx generate`."""
    parser.epilog = EXAMPLES
    options.add_model_flags(parser.add_argument_group("model"))
    add_prompt_flags(parser.add_argument_group("prompt"))
    options.add_generation_flags(parser.add_argument_group("generation"))
    options.add_lazy_flags(parser.add_argument_group("what to compute"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--compare",
        action=argparse.BooleanOptionalAction,
        help="answer with the dense model too, and show both side by side (default: for the embedded document)",
    )
    output.add_argument(
        "--stats-json",
        type=values.path,
        metavar="FILE",
        help="write all figures to a JSON file; '-' is stdout, after the answer",
    )
    output.add_argument(
        "--explain",
        type=values.path,
        metavar="FILE",
        help="write an HTML page that shows how deep each token was computed",
    )
    output.add_argument(
        "--verbose",
        type=values.yes_or_no,
        default=True,
        metavar="T|F",
        help="False: the answer, and nothing else (default: %(default)s)",
    )
    options.add_refused_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Answer; whatever can be refused without loading anything is refused first."""
    options.refuse(args, options.REFUSED)
    lazy = options.lazy_config(args)
    compare = _compares(args)
    if not speaks(args):
        args.stats_json = args.explain = None
    if args.stats_json is not None:
        check_statistics(args.stats_json, "--stats-json")
    if args.explain is not None:
        check_page(args.explain, "--explain")
        if args.stats_json is not None and args.stats_json.resolve() == args.explain.resolve():
            raise UsageError(f"--stats-json: {args.stats_json} is where --explain goes; name another place")
    prompt = UserPrompt(**decided(args, "prompt", lambda: vars(read_prompt(args))))
    if args.document is not None:
        with own_model(args):
            return _ask_saved(args, prompt)
    name = options.model_name(args)
    if args.verbose:
        _announce(prompt, called(args.model))
        if args.model is None:
            say(DEMO if is_demo(args) else EMBEDDED)

    from ..explain import Trace
    from . import answering, statistics  # MLX comes with them, which takes a second

    model, tokenizer, calibrated = answering.open_model(args, name, lazy)
    tokens = encode_prompt(prompt, tokenizer, args)
    if args.verbose:
        for note in notes(len(tokens), model, None if calibrated else lazy, model.lazy):
            say(note)
        statistics.print_rule()
    trace = None if args.explain is None else Trace()
    on_step = None if trace is None else trace.note
    with PrefillBar("reading", shown=args.verbose) as bar:
        first = answering.answer(
            model, tokenizer, tokens, model.lazy, args, emit=write, on_progress=bar, on_step=on_step
        )
    write("\n")
    if args.verbose:
        statistics.print_rule()
        _say_cut_off(first)
        statistics.print_statistics(first, model.lazy)
    _explain(args, trace, tokenizer, first, prompt.question)
    dense = None
    if compare and not first.interrupted:
        with PrefillBar("reading densely", shown=args.verbose) as bar:
            dense = answering.answer(model, tokenizer, tokens, LazyConfig.dense(), args, emit=_discard, on_progress=bar)
        if args.verbose and not dense.interrupted:
            statistics.print_comparison(first, dense)
    if args.stats_json is not None:
        write_statistics(args.stats_json, {"model": name, **statistics.to_dict(first, dense)}, "--stats-json")
    return EXIT_INTERRUPTED if (dense or first).interrupted else 0


def _ask_saved(args: argparse.Namespace, prompt: UserPrompt) -> int:
    """Answer a question about a saved document."""
    from ..explain import Trace
    from . import answering, statistics

    assert prompt.question is not None
    name = options.model_name(args)
    if args.verbose:
        _announce(prompt, called(args.model))
    session = answering.open_saved(args, name)
    if args.verbose:
        tokens = session.stats.context_tokens + count_tokens(prompt.question, session.tokenizer)
        for note in notes(tokens, session.model, None, session.config):
            say(note)
        statistics.print_rule()
    trace = None if args.explain is None else Trace(session.tokens)
    on_step = None if trace is None else trace.note
    with PrefillBar("reading", shown=args.verbose) as bar:
        answer = answering.ask(session, prompt.question, args, emit=write, on_progress=bar, on_step=on_step)
    write("\n")
    if args.verbose:
        statistics.print_rule()
        _say_cut_off(answer)
        statistics.print_statistics(answer, session.config)
    _explain(args, trace, session.tokenizer, answer, prompt.question)
    if args.stats_json is not None:
        write_statistics(args.stats_json, {"model": name, **statistics.to_dict(answer, None)}, "--stats-json")
    return EXIT_INTERRUPTED if answer.interrupted else 0


def _explain(
    args: argparse.Namespace,
    trace: "Trace | None",
    tokenizer: "TokenizerWrapper",
    answer: "Answer",
    question: str | None,
) -> None:
    """Write the page that --explain asks for; of an answer that was interrupted, what there is."""
    from ..explain import page

    if trace is None:
        return
    if not trace.answered:
        say("--explain: the answer had not begun, so no page was written")
        return
    write_text(args.explain, page(trace.history(), tokenizer, answer.lazy, question), "--explain")
    if args.verbose:
        say(f"how deep each token was computed: {args.explain}")


def _compares(args: argparse.Namespace) -> bool:
    if args.compare and args.lazy == "off":
        raise UsageError("--compare: with --lazy off both sides are the dense model; leave out one of the two")
    if args.compare is None:
        return is_demo(args) and args.verbose and args.lazy != "off"
    return args.compare


def _say_cut_off(answer: "Answer") -> None:
    if answer.finish_reason == "length":
        say(f"the answer is cut off after {answer.generation_tokens} tokens; --max-tokens allows more, -1 any number")


def _announce(prompt: UserPrompt, model: str) -> None:
    if prompt.question is None:
        say(f"giving {prompt.name} to {model}")
    else:
        say(f"asking {model} about {prompt.name}: {prompt.question}")


def _discard(text: str) -> None:
    """The dense answer is shown beside the lazy one when both are there."""
