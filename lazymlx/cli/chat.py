"""`lazymlx chat`: a conversation in which documents are read once. Takes mlx_lm.chat's flags, and more.

In a terminal it has line editing, history and commands. Where stdin is none it is a script: a question or a command a
line, answers on stdout, and the exit code of the first thing that failed.
"""

import argparse

from ..errors import Cancelled, StateError, UsageError
from . import options, values
from .input_lines import InputLines, is_interactive, open_input
from .notes import EMBEDDED
from .origin import called, own_model
from .party import decided
from .terminal import say

EXAMPLES = """\
examples:
  lazymlx chat --model PATH
  lazymlx chat --model PATH --document book.lazydoc
  printf '%s\\n' '/read book.txt' 'Who keeps the key?' | lazymlx chat --model PATH > answers.txt
"""
MAX_TOKENS = 256  # mlx_lm.chat's, as is its seed

REFUSED = {**options.REFUSED, "pipeline": "lazymlx runs on one device; leave it out"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx chat`."""
    parser.epilog = EXAMPLES
    options.add_model_flags(parser.add_argument_group("model"))
    talk = parser.add_argument_group("conversation")
    talk.add_argument("--system-prompt", type=values.utf8, metavar="TEXT", help="system message of the chat template")
    talk.add_argument(
        "--document", type=values.path, metavar="FILE", help="go on with what 'lazymlx cache' or /save saved"
    )
    options.add_overwrite_flag(talk)
    options.add_generation_flags(parser.add_argument_group("generation"), MAX_TOKENS)
    options.add_lazy_flags(parser.add_argument_group("what to compute"))
    options.add_refused_flags(parser)
    parser.add_argument("--pipeline", action="store_true", default=None, help=argparse.SUPPRESS)
    parser.set_defaults(seed=0)


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves, or the script ends."""
    options.refuse(args, REFUSED)
    lazy = options.lazy_config(args, "auto")  # what /lazy on and auto go back to
    if args.document is not None:
        options.refuse_settled(args)

    import mlx.core as mx  # which takes a second

    from . import answering, chat_commands
    from .chat_session import ChatSession, described, note

    with own_model(args):
        model, tokenizer, calibrated = answering.open_model(args, options.model_name(args), lazy)
    mx.random.seed(args.seed)
    interactive = is_interactive()
    uncalibrated = None if calibrated else lazy
    conversation = ChatSession(model, tokenizer, args, uncalibrated, interactive=interactive)
    if args.document is not None:
        conversation.open(str(args.document))
    if interactive:
        note(f"{called(args.model)}; {described(conversation.session.config)}; /help lists the commands, Ctrl-D leaves")

    if args.model is None:
        note(EMBEDDED)

    def stay() -> None:
        note("Ctrl-C again, or Ctrl-D, leaves" + ("; this conversation is not saved" if conversation.unsaved else ""))

    lines, code = open_input(chat_commands.complete, stay), 0
    while True:
        try:
            message = _next(args, lines)
            message = chat_commands.SHORT.get(message.strip(), message)
            if message.startswith("/") and "\n" not in message:  # what is pasted may well begin with a slash
                chat_commands.obey(conversation, message)
            elif message.strip():
                conversation.ask(message.strip())
        except EOFError:
            break
        except Cancelled as stopped:
            note(f"stopped: {stopped}")
        except (UsageError, StateError) as error:  # anything else is the end of the chat
            say(f"error: {error}")
            code = code or error.exit_code
    conversation.close()
    return 0 if interactive else code


def _next(args: argparse.Namespace, lines: InputLines) -> str:
    """The next message; raises EOFError at the end."""

    def next_message() -> str | None:
        try:
            return lines.message()
        except EOFError:
            return None

    message = decided(args, "message", next_message)
    if message is None:
        raise EOFError
    return message
