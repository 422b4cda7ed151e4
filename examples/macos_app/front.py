"""`Front`: what a window shows when something happens, for any toolkit. It has no toolkit, and decides nothing else."""

from abc import ABC, abstractmethod
from pathlib import Path

import events as ev
from controller import Controller

HINT = "Open a text, a Markdown file, a PDF or a .lazydoc, and ask about it."
TICK_S = 0.03  # between two looks at what the worker says


class Front(ABC):
    """A window over a controller. A toolkit's own calls `tick` on a timer, and brings the verbs below."""

    def __init__(self, controller: Controller):
        self.controller = controller
        self.details = self.doing = ""  # about the document, and about what is under way

    def start(self, document: Path | None) -> None:
        """The window is there, and so may be a document."""
        self.enable()
        self.write(f"{HINT}\n", "note")
        if document is not None:
            self.controller.open(document)

    def ask(self) -> None:
        """Return was pressed in the question's field, or the button beside it."""
        if question := self.take_question():
            self.controller.ask(question)

    def tick(self) -> None:
        for event in self.controller.events():
            self.show(event)

    def show(self, event: ev.Event) -> None:
        match event:
            case ev.Loaded(name):
                self.name_model(name)
            case ev.Busy(doing):
                self.doing = doing
                self.enable(stop=True)
                self.progress(0, doing)
            case ev.Reading(fraction):
                self.progress(fraction, f"{self.doing}, {fraction:.0%}")
            case ev.Opened(name, tokens, seconds):
                self.name_document(name)
                self.details = f"{tokens:,} tokens, read in {seconds:.1f} s"
                self.clear()
                self.show_costs(None)
            case ev.Asked(question):
                self.write(f"{question}\n", "question")
            case ev.Piece(text):
                self.write(text, "answer")
            case ev.Answered():
                self.write(f"\n{event.early}\n" if event.early else "\n", "note")
                self.show_costs(event)
            case ev.Stopped():
                self.write("stopped\n", "note")
            case ev.Failed(reason):
                self.write(f"{reason}\n", "error")
            case ev.Idle(can_open, can_ask):
                self.progress(0, self.details)
                self.enable(open=can_open, ask=can_ask)

    @abstractmethod
    def enable(self, *, open: bool = False, ask: bool = False, stop: bool = False) -> None:
        """Which buttons may be pressed."""

    @abstractmethod
    def name_model(self, name: str) -> None: ...

    @abstractmethod
    def name_document(self, name: str) -> None: ...

    @abstractmethod
    def progress(self, fraction: float, status: str) -> None:
        """How long the bar is, and the words beside it."""

    @abstractmethod
    def write(self, text: str, style: str) -> None:
        """More text at the end: a "question", an "answer", a "note" or an "error"."""

    @abstractmethod
    def clear(self) -> None:
        """No text."""

    @abstractmethod
    def show_costs(self, answer: ev.Answered | None) -> None:
        """What the newest answer cost; None if there is none."""

    @abstractmethod
    def take_question(self) -> str:
        """What is in the question's field, which is empty then; nothing while no question may be asked."""
