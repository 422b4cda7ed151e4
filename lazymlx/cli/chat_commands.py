"""What a chat can be told beside questions: what follows a command's name, its help, and what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import UsageError
from . import chat_settings
from .chat_session import NEW, ChatSession, described, note
from .origin import called


@dataclass(frozen=True)
class ChatCommand:
    """One command; `operand` is what has to follow its name, "" if nothing may, in brackets if it may be left out."""

    operand: str
    help: str
    run: Callable[[ChatSession, str], None]


def obey(conversation: ChatSession, message: str) -> None:
    """Do what a message that begins with a slash says.

    Raises:
        UsageError: there is no such command, or something is missing.
        EOFError: it was /quit.
    """
    name, *rest = message[1:].split(maxsplit=1) or [""]
    operand = "".join(rest).strip()
    if name not in COMMANDS:
        known = " ".join(f"/{known}" for known in COMMANDS)
        raise UsageError(f"/{name}: no such command; there are {known} (a space before it makes it a question)")
    command = COMMANDS[name]
    if bool(operand) != bool(command.operand) and not command.operand.startswith("["):
        expected = command.operand or "nothing"
        raise UsageError(f"/{name}: expected {expected} after it, got {operand or 'nothing'}")
    command.run(conversation, operand)


def complete(line: str) -> list[str]:
    """What a line may become: a command's name, or a file after one."""
    if not line.startswith("/"):
        return []
    name, space, operand = line.partition(" ")
    if not space:
        return [f"/{known}" for known in COMMANDS if f"/{known}".startswith(name)]
    path = Path(operand).expanduser()
    folder = path if operand.endswith("/") else path.parent
    start = operand[: len(operand) - len("" if operand.endswith("/") else path.name)]
    if "FILE" not in COMMANDS.get(name[1:], COMMANDS["help"]).operand or not folder.is_dir():
        return []
    prefix = "" if operand.endswith("/") else path.name
    found = sorted(file for file in folder.iterdir() if file.name.startswith(prefix))
    return [f"{name} {start}{file.name}{'/' if file.is_dir() else ''}" for file in found]


def _docs(conversation: ChatSession, _: str) -> None:
    for document in conversation.documents:
        note(f"{document.name}: {document.tokens} tokens")
    if not conversation.documents:
        note("nothing has been read yet; /read FILE does it")


def _lazy(conversation: ChatSession, words: str) -> None:
    conversation.restart(conversation.config_for(words))
    note(f"{NEW}: {described(conversation.session.config)}")


def _reset(conversation: ChatSession, _: str) -> None:
    conversation.restart()
    note(NEW)


def _stats(conversation: ChatSession, _: str) -> None:
    for line in conversation.statistics():
        note(line)


def _set(conversation: ChatSession, words: str) -> None:
    name, *value = words.split(maxsplit=1) or [""]
    if value:
        conversation.set(words)
    else:
        for line in chat_settings.settings(conversation.args, name):
            note(line)


def _model(conversation: ChatSession, name: str) -> None:
    if name:
        conversation.use(name)
    else:
        note(called(conversation.args.model))


def _help(conversation: ChatSession, _: str) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for name, command in COMMANDS.items():
        table.add_row(f"/{name} {command.operand}".rstrip(), command.help)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(HELP)


def _quit(conversation: ChatSession, _: str) -> None:
    raise EOFError


COMMANDS: dict[str, ChatCommand] = {
    "read": ChatCommand("FILE", "read documents, folders or addresses, for the questions to come", ChatSession.read),
    "docs": ChatCommand("", "list what has been read", _docs),
    "save": ChatCommand("FILE", "save the conversation with all that was read", ChatSession.save),
    "open": ChatCommand("FILE", "go on with a saved one", ChatSession.open),
    "undo": ChatCommand("", "forget the newest question or document", lambda conversation, _: conversation.undo()),
    "retry": ChatCommand("", "ask the newest question again", lambda conversation, _: conversation.retry()),
    "explain": ChatCommand("[FILE]", "write a page that shows what the newest answer was made of", ChatSession.explain),
    "stats": ChatCommand("", "what the conversation has cost so far", _stats),
    "lazy": ChatCommand("on|off|auto|SCHEDULE", "what to leave behind; begins a new conversation", _lazy),
    "set": ChatCommand(
        "[NAME VALUE]", "temperature, max-tokens, system, ...; without a value it says what is set", _set
    ),
    "model": ChatCommand("[NAME]", "begin a new conversation with another model; alone it names this one", _model),
    "reset": ChatCommand("", "begin a new conversation; as r alone does", _reset),
    "help": ChatCommand("", "this list; as h alone does", _help),
    "quit": ChatCommand("", "leave; as q alone and Ctrl-D do", _quit),
}
SHORT = {"q": "/quit", "r": "/reset", "h": "/help"}  # mlx_lm.chat's

HELP = """\
Anything else is a question. A backslash at the end of a line goes on in the next; a paste is one message.
Ctrl-C stops an answer; a second one, or two at an empty prompt, or Ctrl-D, leaves."""
