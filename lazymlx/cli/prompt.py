"""From flags to the prompt's tokens: where the text comes from, document and question, and the chat template."""

import argparse
import io
import sys
from dataclasses import dataclass
from typing import Any

from .. import demo
from ..documents import MOST_BYTES, all_of, read_document, text_of_bytes
from ..errors import PromptError, UsageError
from ..messages import BREAK, about
from ..templates import encodable, rendered
from .options import refuse_settled
from .parser import Once
from .terminal import say
from .values import json_object, path, utf8

DEFAULT_PROMPT = "hello"  # mlx_lm.generate's
LONG_ANSWER = 6  # the demonstration's question: its answer is long enough to tell a rate


@dataclass(frozen=True)
class UserPrompt:
    """What the user asks: a text, or a question about it. `name` is what the text is called when it is talked about."""

    text: str
    name: str
    question: str | None = None

    @property
    def message(self) -> str:
        """The user's message."""
        return self.text if self.question is None else about(self.text, self.question)


def add_prompt_flags(parser: argparse._ActionsContainer) -> None:
    """Where the prompt comes from, and how it is dressed."""
    add = parser.add_argument
    add(
        "--prompt",
        "-p",
        action=Once,
        type=utf8,
        metavar="TEXT",
        help=f"the prompt; '-' reads stdin (default: {DEFAULT_PROMPT}; without --model: the embedded document)",
    )
    add_document_flag(parser, "read the prompt from a document, or several")
    add(
        "--question",
        "-q",
        action=Once,
        type=utf8,
        metavar="TEXT",
        help="a question about the prompt, which then is the document",
    )
    add("--document", type=path, metavar="FILE", help="ask about a document that 'lazymlx cache' has read and saved")
    add("--system-prompt", type=utf8, metavar="TEXT", help="system message of the chat template")
    add("--prefill-response", type=utf8, metavar="TEXT", help="how the answer begins, for the chat template")
    add("--ignore-chat-template", action="store_true", help="use the prompt as it is")
    add(
        "--chat-template-config",
        type=json_object,
        default={},
        metavar="JSON",
        help="more arguments for the chat template",
    )


def add_document_flag(parser: argparse._ActionsContainer, text: str) -> None:
    """Where a document comes from; `text` is what to say of it."""
    parser.add_argument(
        "--prompt-file",
        action=Once,
        nargs="+",
        metavar="FILE",
        help=f"{text}: text, Markdown, PDF, docx, HTML, EPUB, a folder of them, an address, or '-' for stdin",
    )


def is_demo(args: argparse.Namespace) -> bool:
    """Whether nothing was asked of any model of the user's own: then the embedded document is read."""
    return args.model is None and args.prompt is None and args.prompt_file is None and args.document is None


def read_prompt(args: argparse.Namespace) -> UserPrompt:
    """The prompt that the flags name.

    Raises:
        UsageError: two of them contradict each other, or a question has no document.
        PromptError: the text is missing, unreadable or empty.
    """
    if args.ranks is not None and "-" in (args.prompt, *(args.prompt_file or ())):
        raise UsageError(
            "--prompt: '-' has no end for ranks, whom launchers do not tell of it; name a file with --prompt-file"
        )
    if args.prompt is not None and args.prompt_file is not None:
        raise UsageError("--prompt-file: a prompt is given already with --prompt; leave out one of the two")
    question = None if args.question is None else unescape(args.question)
    if args.document is not None:
        return _about_saved(args, question)
    if is_demo(args):
        asked = demo.questions()[LONG_ANSWER]["question"] if question is None else question
        prompt = UserPrompt(demo.document(), "the embedded document", asked)
    elif args.prompt_file is not None:
        text = BREAK.join(_read(file) for file in args.prompt_file)
        prompt = UserPrompt(text, ", ".join(args.prompt_file), question)
    elif args.prompt == "-":
        prompt = UserPrompt(read_stdin(), "stdin", question)
    elif args.prompt is None and question is not None:
        raise UsageError("--question: there is no document to ask; give it with --prompt-file, or with --prompt -")
    else:
        prompt = UserPrompt(unescape(DEFAULT_PROMPT if args.prompt is None else args.prompt), "the prompt", question)
    if not prompt.text.strip():
        raise PromptError(f"prompt: {prompt.name} is empty; expected some text")
    if question is not None and not question.strip():
        raise PromptError("question: it is empty; expected some text")
    return prompt


def _about_saved(args: argparse.Namespace, question: str | None) -> UserPrompt:
    """A question about a saved document, which says how it was read; what would change that is refused."""
    settled = ("prompt", "prompt_file", "prefill_response", "ignore_chat_template", "chat_template_config", "compare")
    given = args.given | ({"compare"} if args.compare else set())
    for name in settled:
        if name in given:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: goes without --document, which was read before; leave out one of the two")
    refuse_settled(args)
    if question is None or not question.strip():
        raise UsageError("--document: there is no question about it; give one with --question")
    return UserPrompt("", str(args.document), question)


def _read(file: str) -> str:
    """A document's text; that of '-' is what comes from stdin, of whatever kind."""
    if file != "-":
        return read_document(file)
    if sys.stdin is None:
        raise PromptError("document: stdin is closed; expected the document there")
    return text_of_bytes(all_of(sys.stdin.buffer, "stdin"), "stdin")


def unescape(text: str) -> str:
    """Line breaks and tabs of a prompt typed in a shell, as mlx_lm.generate reads them."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def read_stdin() -> str:
    """All of stdin, as UTF-8 text."""
    if sys.stdin is None:
        raise PromptError("prompt: stdin is closed; expected the text there")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig")
    if sys.stdin.isatty():
        say("type the prompt, and end it with Ctrl-D on a line of its own")
    try:
        text = sys.stdin.read(MOST_BYTES + 1)
    except UnicodeDecodeError as error:
        raise PromptError(
            f"prompt: stdin is not UTF-8 text (byte {error.start}); a PDF, docx or EPUB is read by --prompt-file -"
        ) from None
    if len(text) > MOST_BYTES:
        raise PromptError(f"prompt: stdin has more than {MOST_BYTES >> 20} million characters; give a part of it")
    return text


def encode_prompt(prompt: UserPrompt, tokenizer: Any, args: argparse.Namespace) -> list[int]:
    """Token ids of the prompt, as mlx_lm.generate makes them: a template brings its special tokens along.

    `verbose=False` quiets what Transformers has to say about long texts, which is true of its own models alone.
    """
    if args.ignore_chat_template or not tokenizer.has_chat_template:
        return tokenizer.encode(encodable(prompt.message), add_special_tokens=True, verbose=False)
    return tokenizer.encode(_templated(prompt, tokenizer, args), add_special_tokens=False, verbose=False)


def count_tokens(text: str, tokenizer: Any) -> int:
    """How many tokens a text has, on its own."""
    return len(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def _templated(prompt: UserPrompt, tokenizer: Any, args: argparse.Namespace) -> str:
    messages = [
        {"role": role, "content": text}
        for role, text in (
            ("system", args.system_prompt),
            ("user", prompt.message),
            ("assistant", args.prefill_response),
        )
        if text is not None
    ]
    begun = args.prefill_response is not None
    options = {"continue_final_message": begun, "add_generation_prompt": not begun}
    try:
        return rendered(tokenizer, messages, **options, **args.chat_template_config)
    except (PromptError, TypeError) as error:
        cause = error if isinstance(error, TypeError) else error.__cause__
        if not (args.chat_template_config and isinstance(cause, TypeError)):
            raise
        names = ", ".join(args.chat_template_config)
        raise UsageError(f"--chat-template-config: the chat template cannot be given {names}: {cause}") from None
