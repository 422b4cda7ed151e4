"""The example app: its controller without a window, and its Tk window on a virtual screen."""

import ast
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lazymlx import Session, demo, load

APP = Path(__file__).parents[2] / "examples" / "macos_app"
sys.path.insert(0, str(APP))  # an app's modules know each other by their own names

import events as ev  # noqa: E402
from controller import Controller  # noqa: E402

PATIENCE = 60.0  # seconds, after which a test has failed
LONGEST_GAP = 1.5  # seconds for which a window may be deaf; reading takes several, on a busy machine many


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Long enough for the tiny model to leave tokens of it behind."""
    path = tmp_path / "harbour.txt"
    path.write_text(demo.document()[:6000], encoding="utf-8")
    return path


@pytest.fixture
def long_document(tmp_path: Path) -> Path:
    path = tmp_path / "long.md"
    path.write_text(demo.document() * 8, encoding="utf-8")
    return path


# --- without a window -------------------------------------------------------------------------------


@pytest.fixture
def controller(tiny_model_folder: Path) -> Iterator[Controller]:
    controller = Controller(str(tiny_model_folder), max_tokens=40)
    until(controller, ev.Idle)
    yield controller
    controller.close()
    assert "lazymlx" not in [thread.name for thread in threading.enumerate()]


def until(controller: Controller, kind: type, when: Callable[[Any], bool] = lambda event: True) -> list[ev.Event]:
    """What happens up to an event of this kind."""
    seen: list[ev.Event] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for event in controller.events():
            seen.append(event)
            if isinstance(event, kind) and when(event):
                return seen
        time.sleep(0.002)
    raise AssertionError(f"no {kind.__name__} in {PATIENCE:.0f} s, but {seen[-5:]}")


def only(kind: type, events: list[ev.Event]) -> Any:
    (event,) = (event for event in events if isinstance(event, kind))
    return event


def test_reads_and_answers(controller, document):
    controller.open(document)
    seen = until(controller, ev.Idle)
    fractions = [event.fraction for event in seen if isinstance(event, ev.Reading)]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 3
    assert only(ev.Opened, seen).name == "harbour.txt" and seen[-1] == ev.Idle(can_open=True, can_ask=True)

    controller.ask("Who keeps the key?")
    seen = until(controller, ev.Idle)
    answered = only(ev.Answered, seen)
    (layers, tokens, total), *deeper = answered.kept()
    assert layers == "layers 0–3" and tokens == total == answered.stats.prompt_end
    assert deeper and all(tokens < total for _, tokens, total in deeper)
    assert any(isinstance(event, ev.Piece) for event in seen) and len(answered.figures()) == 4


def test_stops_in_the_middle_of_a_document(controller, document, long_document):
    controller.open(long_document)
    until(controller, ev.Reading, lambda event: event.fraction > 0)
    controller.open(document)  # waits, and so is meant too
    controller.stop()
    seen = until(controller, ev.Idle) + until(controller, ev.Idle)
    assert sum(isinstance(event, ev.Stopped) for event in seen) == 2 and not seen[-1].can_ask
    controller.open(document)
    assert only(ev.Opened, until(controller, ev.Idle))


def test_stops_in_the_middle_of_an_answer(controller, document):
    controller.open(document)
    until(controller, ev.Idle)
    controller.ask("Who keeps the key?")
    until(controller, ev.Piece)
    controller.stop()
    assert only(ev.Answered, until(controller, ev.Idle)).early == "stopped"
    controller.ask("And where is it?")
    assert only(ev.Answered, until(controller, ev.Idle)).early != "stopped"


def test_a_document_that_was_read_before(controller, tiny_model_folder, document, tmp_path):
    session = Session(*load(str(tiny_model_folder)))
    session.read(document)
    session.save(tmp_path / "harbour.lazydoc")
    controller.open(tmp_path / "harbour.lazydoc")
    assert only(ev.Opened, until(controller, ev.Idle)).tokens == session.stats.context_tokens
    controller.ask("Who keeps the key?")
    assert only(ev.Answered, until(controller, ev.Idle))


def test_errors_are_one_line_and_nothing_is_lost(controller, document, tmp_path):
    controller.ask("Who keeps the key?")
    assert "open a document" in only(ev.Failed, until(controller, ev.Idle)).reason
    controller.open(document)
    until(controller, ev.Idle)
    for name, content, complaint in (
        ("none.txt", None, "cannot be read"),
        ("binary.txt", bytes(range(256)), "UTF-8"),
        ("empty.txt", b"", "empty"),
        ("torn.pdf", b"%PDF-1.4\ntorn", "PDF"),
        ("torn.lazydoc", b"torn", "torn.lazydoc"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        controller.open(tmp_path / name)
        reason = only(ev.Failed, until(controller, ev.Idle)).reason
        assert complaint in reason and "\n" not in reason and not reason.startswith("unexpected")
    controller.ask("Who keeps the key?")
    assert only(ev.Answered, until(controller, ev.Idle)), "the document before is still there"


def test_too_long_for_the_memory(tiny_model_folder, long_document):
    controller = Controller(str(tiny_model_folder), max_memory=4_000_000)
    controller.open(long_document)
    assert "MB" in only(ev.Failed, until(controller, ev.Failed)).reason
    controller.close()


def test_no_model(document, tmp_path):
    controller = Controller(str(tmp_path / "none"))
    controller.open(document)
    seen = until(controller, ev.Idle) + until(controller, ev.Idle)
    assert [event.reason[:8] for event in seen if isinstance(event, ev.Failed)] == ["model: n", "there is"]
    controller.close()


def test_every_selector_of_the_cocoa_window_has_its_method():
    """It cannot be run here; but a button whose method is not there can be found by reading."""
    source = ast.parse((APP / "appkit_front.py").read_text(encoding="utf-8"))
    (actions,) = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Actions")
    methods = {node.name for node in actions.body if isinstance(node, ast.FunctionDef)}
    texts = {str(node.value) for node in ast.walk(source) if isinstance(node, ast.Constant)}
    selectors = {text[:-1] for text in texts if text.endswith(":") and text[:-1].isalpha()}
    cocoa = {"terminate", "cut", "copy", "paste"}  # its own, found by the focus
    assert {f"{name}_" for name in selectors - cocoa} == {name for name in methods if "application" not in name}


# --- the window -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The name of a virtual screen."""
    pytest.importorskip("tkinter", reason="this Python has no Tk (Debian, Ubuntu: apt-get install python3-tk)")
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no virtual screen (Debian, Ubuntu: apt-get install xvfb)")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1000x760x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as told:
        yield f":{told.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.fixture
def tk_front(screen: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DISPLAY", screen)
    import tk_front

    yield tk_front
    gc.collect()  # Tk's interpreter must be freed by this thread: the next test's worker would abort the process


Script = Iterator[Callable[[], bool]]


def play(window: Any, script: Script) -> float:
    """Go on in a script whenever the condition that it waits for holds; at its end, click on the window's cross.

    Returns the longest time in which the window heard nothing.
    """
    condition, errors, gaps, last = next(script), [], [0.0], time.monotonic()
    end = last + PATIENCE

    def fail(kind: type, error: BaseException, trace: object) -> None:
        errors.append(error)
        window.close()

    def beat() -> None:
        nonlocal condition, last
        now = time.monotonic()
        gaps.append(now - last)
        last = now
        assert now < end, "the script has not come to its end"
        if condition():
            condition = next(script, None)
        if condition is None:
            window.root.tk.eval(window.root.protocol("WM_DELETE_WINDOW"))
        else:
            window.root.after(5, beat)

    window.root.report_callback_exception = fail
    beat()
    window.root.mainloop()
    if errors:
        raise errors[0]
    return max(gaps)


def ready(window: Any) -> Callable[[], bool]:
    return lambda: window.ask_button.instate(["!disabled"])


def shows(window: Any, text: str) -> Callable[[], bool]:
    return lambda: text in window.text.get("1.0", "end")


def press(window: Any, question: str) -> None:
    window.question.insert(0, question)
    window.ask_button.invoke()


def test_the_window_never_freezes(tk_front, tmp_path):
    """The embedded model is loaded, reads, is stopped in an answer, and gives another."""
    path, (fact, *_, quote, _) = tmp_path / "harbour.txt", demo.questions()
    path.write_text("\n\n".join(demo.document().split("\n\n")[:8]), encoding="utf-8")
    window = tk_front.TkFront(Controller(str(demo.MODEL)), path)

    def script() -> Script:
        yield lambda: "reading" in window.status["text"] and -window.bar.winfo_width() < window.bar.winfo_x() < 0
        yield ready(window)
        press(window, quote["question"])
        yield shows(window, quote["answer"].split()[0])
        window.stop_button.invoke()
        yield ready(window)
        assert shows(window, "stopped")()
        press(window, fact["question"])
        yield shows(window, fact["answer"])
        yield ready(window)
        assert len(window.figures.winfo_children()) == 4

    assert play(window, script()) < LONGEST_GAP


def test_errors_are_shown(tk_front, tiny_model_folder, tmp_path):
    window = tk_front.TkFront(Controller(str(tiny_model_folder)), tmp_path / "none.txt")

    def script() -> Script:
        yield shows(window, "none.txt cannot be read")
        assert window.open_button.instate(["!disabled"]) and window.ask_button.instate(["disabled"])

    play(window, script())


def close_in_mid_answer() -> None:
    """What the process of the test below does: the app as it is, with somebody at its window."""
    import runpy

    import tk_front

    def run(controller: Controller, document: Path) -> None:
        window = tk_front.TkFront(controller, document)

        def script() -> Script:
            yield ready(window)
            press(window, "Who keeps the key?")
            yield lambda: window.status["text"] == "answering"

        play(window, script())

    tk_front.run = run
    runpy.run_path(str(APP), run_name="__main__")


def test_closing_in_mid_answer_leaves_nothing_behind(screen, tiny_model_folder, document, tmp_path):
    (temporary := tmp_path / "temporary").mkdir()
    paths = os.pathsep.join(
        str(path) for path in (Path(__file__).parent, Path(__file__).parents[1] / "support", APP.parent.parent)
    )
    code = "import test_app; test_app.close_in_mid_answer()"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, "--tk", "--model", str(tiny_model_folder), str(document)],
        env={**os.environ, "DISPLAY": screen, "PYTHONPATH": paths, "TMPDIR": str(temporary)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, "")  # a thread that lived on would have kept it alive
    assert {path.name for path in temporary.iterdir()} <= {"mlx"}  # its compiled kernels, for the next time
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
