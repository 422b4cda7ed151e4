"""The window in Tk."""

import tkinter as tk
from pathlib import Path
from tkinter import filedialog, font, ttk

from controller import Controller
from events import Answered
from front import TICK_S, Front

INK, DIM, LINE, PANEL, PAPER = "#1b2130", "#79839a", "#e3e7ee", "#f6f8fb", "#ffffff"
GREY, BLUE, PALE, RED = "#b9c0cd", "#2f6fed", "#b4cbf8", "#c2362b"
FAMILIES = ("SF Pro Text", "Helvetica Neue", "Segoe UI", "Inter", "Noto Sans", "DejaVu Sans")
KINDS = [("Documents", "*.txt *.md *.pdf *.lazydoc"), ("All files", "*")]

NAMES, BARS, ROW = 112, 380, 22  # pixels: where the bars of what was kept begin, how long they are, and a row


def run(controller: Controller, document: Path | None = None) -> None:
    """Show the window until it is closed."""
    TkFront(controller, document).root.mainloop()


class TkFront(Front):
    """From top to bottom: the document, the conversation, what its newest answer cost, and the question."""

    def __init__(self, controller: Controller, document: Path | None = None):
        super().__init__(controller)
        self.root = tk.Tk(className="lazymlx")
        self.root.title("lazymlx")
        self.root.geometry("860x620")
        self.root.minsize(720, 460)
        self.root.configure(background=PAPER)
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.family = next((name for name in FAMILIES if name in font.families()), "TkDefaultFont")
        self.set_style()
        self.build_title()
        self.build_question()
        self.build_costs()
        self.build_text()
        self.start(document)
        self.tick()

    def tick(self) -> None:
        super().tick()
        self.root.after(round(TICK_S * 1000), self.tick)

    def choose(self) -> None:
        if name := filedialog.askopenfilename(parent=self.root, title="Open a document", filetypes=KINDS):
            self.controller.open(Path(name))

    def close(self) -> None:
        self.root.withdraw()  # it vanishes at once, whatever is under way
        self.root.update_idletasks()
        self.controller.close()  # before Tk's objects go: no other thread may be the one that frees them
        self.root.destroy()

    # what the window is made of

    def set_style(self) -> None:
        style = ttk.Style(self.root)
        style.theme_use("clam")
        style.configure(".", background=PAPER, foreground=INK, font=(self.family, 10), bordercolor=LINE)
        style.configure("Dim.TLabel", foreground=DIM)
        style.configure("Title.TLabel", font=(self.family, 12, "bold"))
        style.configure("Panel.TFrame", background=PANEL)
        style.configure("Caption.TLabel", background=PANEL, foreground=DIM, font=(self.family, 9))
        style.configure("Figure.TLabel", background=PANEL, font=(self.family, 13, "bold"))
        style.configure("TEntry", padding=(8, 6), lightcolor=PAPER, fieldbackground=PAPER)
        style.map("TEntry", bordercolor=[("focus", BLUE)], lightcolor=[("focus", PAPER)])
        flat = {"background": PAPER, "lightcolor": PAPER, "darkcolor": PAPER, "focuscolor": PAPER}
        style.configure("TButton", padding=(14, 6), width=0, **flat)
        style.map("TButton", background=[("active", PANEL)], foreground=[("disabled", GREY)])
        blue = [("disabled", PALE), ("!disabled", BLUE)]
        every = dict.fromkeys(("background", "bordercolor", "lightcolor", "darkcolor", "focuscolor"), blue)
        style.map("Ask.TButton", foreground=[("disabled", PAPER), ("!disabled", PAPER)], **every)

    def build_title(self) -> None:
        line = ttk.Frame(self.root, padding=(20, 14))
        line.pack(fill="x")
        self.open_button = ttk.Button(line, text="Open…", command=self.choose)
        self.title = ttk.Label(line, style="Title.TLabel", text="No document yet")
        self.status = ttk.Label(line, style="Dim.TLabel")
        for widget, gap in ((self.open_button, 0), (self.title, (16, 10)), (self.status, 0)):
            widget.pack(side="left", padx=gap)
        self.model = ttk.Label(line, style="Dim.TLabel")
        self.model.pack(side="right")
        track = tk.Frame(self.root, background=LINE, height=3)
        track.pack(fill="x")
        self.bar = tk.Frame(track, background=BLUE)

    def build_question(self) -> None:
        line = ttk.Frame(self.root, padding=(20, 14))
        line.pack(side="bottom", fill="x")
        self.stop_button = ttk.Button(line, text="Stop", command=self.controller.stop)
        self.ask_button = ttk.Button(line, text="Ask", style="Ask.TButton", command=self.ask)
        for button in (self.stop_button, self.ask_button):
            button.pack(side="right", padx=(8, 0))
        self.question = ttk.Entry(line, font=(self.family, 11))
        self.question.bind("<Return>", lambda _: self.ask())
        self.question.pack(side="left", fill="x", expand=True)
        self.question.focus()

    def build_costs(self) -> None:
        panel = ttk.Frame(self.root, style="Panel.TFrame", padding=(24, 14))
        panel.pack(side="bottom", fill="x")
        self.kept = tk.Canvas(panel, background=PANEL, highlightthickness=0)
        self.kept.pack(fill="x")
        self.figures = ttk.Frame(panel, style="Panel.TFrame")
        self.figures.pack(fill="x")
        self.show_costs(None)

    def build_text(self) -> None:
        self.text = tk.Text(self.root, wrap="word", font=(self.family, 12), foreground=INK, background=PAPER)
        self.text.configure(relief="flat", highlightthickness=0, padx=24, pady=14, spacing2=4, state="disabled")
        self.text.tag_configure("question", font=(self.family, 12, "bold"), spacing1=18, spacing3=4)
        for style, colour in (("note", DIM), ("error", RED)):
            self.text.tag_configure(style, foreground=colour, font=(self.family, 10), spacing1=4, spacing3=4)
        self.text.pack(fill="both", expand=True)

    # what it shows

    def enable(self, *, open: bool = False, ask: bool = False, stop: bool = False) -> None:
        buttons = {self.open_button: open, self.ask_button: ask, self.stop_button: stop}
        for button, on in buttons.items():
            button.state(["!disabled" if on else "disabled"])

    def name_model(self, name: str) -> None:
        self.model.configure(text=name)

    def name_document(self, name: str) -> None:
        self.title.configure(text=name)

    def progress(self, fraction: float, status: str) -> None:
        self.bar.place(relx=fraction - 1, relwidth=1, relheight=1)
        self.status.configure(text=status)

    def write(self, text: str, style: str) -> None:
        self.text.configure(state="normal")
        self.text.insert("end", text, style)
        self.text.configure(state="disabled")
        self.text.see("end")

    def clear(self) -> None:
        self.text.configure(state="normal")
        self.text.delete("1.0", "end")
        self.text.configure(state="disabled")

    def show_costs(self, answer: Answered | None) -> None:
        """A bar for each stage, and the figures below."""
        self.kept.delete("all")
        for cell in self.figures.winfo_children():
            cell.destroy()
        small = {"anchor": "w", "font": (self.family, 10)}
        if answer is None:
            self.kept.configure(height=ROW)
            text = "Which tokens an answer needs, and what it costs, is shown here."
            self.kept.create_text(0, ROW / 2, text=text, fill=DIM, **small)
            return
        self.kept.configure(height=ROW * len(answer.kept()))
        for row, (layers, tokens, total) in enumerate(answer.kept()):
            y, share = (row + 0.5) * ROW, f"{tokens:,} of {total:,} tokens ({tokens / total:.0%})"
            self.kept.create_text(0, y, text=layers, fill=INK, **small)
            for colour, length in ((LINE, BARS), (BLUE, BARS * tokens / total)):
                self.kept.create_rectangle(NAMES, y - 5, NAMES + length, y + 5, fill=colour, width=0)
            self.kept.create_text(NAMES + BARS + 14, y, text=share, fill=DIM, **small)
        for column, (value, caption) in enumerate(answer.figures()):
            cell = ttk.Frame(self.figures, style="Panel.TFrame", padding=(0, 12, 40, 0))
            cell.grid(row=0, column=column, sticky="w")
            ttk.Label(cell, style="Figure.TLabel", text=value).pack(anchor="w")
            ttk.Label(cell, style="Caption.TLabel", text=caption).pack(anchor="w")

    def take_question(self) -> str:
        question = self.question.get().strip()
        if self.ask_button.instate(["disabled"]):
            return ""
        self.question.delete(0, "end")
        return question
