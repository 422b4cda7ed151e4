"""`lazymlx chat` as a script: a question or a command a line, and no terminal."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
from commands import LAZY, TEXT

from lazymlx import LazyConfig, Session, load
from lazymlx.cli.chat_commands import COMMANDS, complete
from lazymlx.cli.ctrl_c import CtrlC
from lazymlx.cli.history import HISTORY, append_history, history_file, load_history
from lazymlx.cli.input_lines import one_by_one
from lazymlx.cli.main import main
from lazymlx.cli.typeset import CONTROL

CONFIG = LazyConfig("2:0.5,4:0.2", min_tokens=16, recent=2, window=2, round_to=1)


class Chat:
    """Runs scripts on the tiny model."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, scratch: Path):
        self.folder, self.capsys, self.patch = folder, capsys, patch
        self.book, self.saved = scratch / "the book.txt", scratch / "book.lazydoc"
        self.book.write_text(TEXT, encoding="utf-8")
        self.err = ""

    def __call__(self, *lines: str | bytes, flags: list[str] = LAZY, code: int = 0) -> list[str]:
        """The lines of stdout; those of stderr are in `err`."""
        script = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script)))
        assert main(["chat", "--model", str(self.folder), "-m", "6", *flags]) == code
        out, self.err = self.capsys.readouterr()
        assert "\x1b" not in out + self.err and "Traceback" not in self.err
        return out.splitlines()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("lazymlx: error: ")]

    def session(self) -> Session:
        """What a script does, by hand."""
        return Session(*load(str(self.folder), CONFIG))


@pytest.fixture
def chat(
    tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Chat:
    return Chat(tiny_model_folder, capsys, monkeypatch, tmp_path)


def said(session: Session, question: str) -> list[str]:
    return "".join(response.text for response in session.ask(question, 6)).splitlines()


def test_a_script_gets_the_answers_of_a_session_and_nothing_else(chat: Chat) -> None:
    out = chat(f"/read {chat.book}", "Who lights it?", "", "Which one?")
    with chat.session() as session:
        session.read(TEXT)
        assert out == [*said(session, "Who lights it?"), *said(session, "Which one?")]
    costs = re.findall(
        r"^kept (\d+)/(\d+), \d+/(\d+) · revived \d+ · TTFT .* s · .* tok/s · .* MB held", chat.err, re.M
    )
    assert len(costs) == 2 and all(int(kept) < int(N) for kept, N, _ in costs)


def test_undo_and_retry(chat: Chat) -> None:
    first, again = chat(f"/read {chat.book}", "Who lights it?", "/retry")
    assert first == again
    assert chat("Who?", "/undo", "Who?")[0] == chat("Who?")[0]
    chat(f"/read {chat.book}", "/docs", "/undo", "/docs", "/undo", code=1)
    assert re.search(r"^the book.txt: \d+ tokens\nforgot the book.txt\nnothing has been read yet", chat.err, re.M)
    assert chat.errors == ["lazymlx: error: undo: nothing has been asked or read yet"]
    chat(f"/read {chat.book}", "/retry", code=1)
    assert chat.errors == ["lazymlx: error: retry: there is no answer to replace; ask a question first"]


def test_a_saved_conversation_goes_on(chat: Chat) -> None:
    straight = chat(f"/read {chat.book}", "Who lights it?", "Which one?")
    chat(f"/read '{chat.book}'", "Who lights it?", f"/save {chat.saved}")
    assert re.search(r"saved \d+ tokens to .*book.lazydoc, \d+\.\d MB", chat.err)
    assert chat(f"/open {chat.saved}", "/docs", "Which one?", flags=[]) == straight[1:]
    assert re.search(r"^the book.txt: \d+ tokens$", chat.err, re.M)  # what was read keeps its name
    assert chat("Which one?", "/docs", flags=["--document", str(chat.saved)]) == straight[1:]
    assert re.search(r"^the book.txt: \d+ tokens$", chat.err, re.M)


class Impatient(CtrlC):
    """Somebody who wants the n-th thing to stop while it is done."""

    wishes: list[bool] = []

    def __enter__(self) -> CtrlC:
        self.wished = self.wishes.pop(0)
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_cancelled_reading_goes_on(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = chat(f"/read {chat.book}", "Who lights it?")
    monkeypatch.setattr("lazymlx.cli.chat_session.CtrlC", Impatient)
    monkeypatch.setattr(Impatient, "wishes", [True, False, False])
    out = chat(f"/read {chat.book}", "/docs", f"/read {chat.book}", "/docs", "Who lights it?", "/stats")
    assert out == straight
    assert re.search(r"stopped: cancelled after \d+ of \d+ tokens; /read .*the book.txt goes on from there", chat.err)
    assert "nothing has been read yet" in chat.err and " 2 messages" in chat.err


def test_saving_replaces_saved_documents_alone(chat: Chat) -> None:
    chat("Who?", f"/save {chat.book}", f"/save {chat.saved}", f"/save {chat.saved}", code=2)
    assert len(chat.errors) == 1 and "is a file of another kind, which would be lost" in chat.errors[0]
    assert chat.book.read_text(encoding="utf-8") == TEXT


def test_another_conversation_is_replaced_by_a_flag_alone(chat: Chat) -> None:
    chat("Who?", f"/save {chat.saved}")
    before = chat.saved.read_bytes()
    chat("Which one?", f"/save {chat.saved}", code=2)
    assert "holds another conversation" in chat.errors[0] and "--overwrite" in chat.errors[0]
    assert chat.saved.read_bytes() == before
    chat(f"/open {chat.saved}", "Which one?", f"/save {chat.saved}")  # its own
    assert chat.saved.read_bytes() != before
    chat("Which one?", f"/save {chat.saved}", flags=[*LAZY, "--overwrite"])
    assert not chat.errors


def test_an_older_answer_is_explained_after_undo(chat: Chat, tmp_path: Path) -> None:
    pages = [tmp_path / f"{n}.html" for n in range(2)]
    lines = ["Who lights it?", f"/explain {pages[0]}", "Which one?", "/undo", f"/explain {pages[1]}"]
    chat(f"/read {chat.book}", *lines, "/undo", f"/explain {pages[1]}", code=1)
    assert pages[0].read_text(encoding="utf-8") == pages[1].read_text(encoding="utf-8")
    assert chat.errors == ["lazymlx: error: explain: there is no answer to explain; ask a question first"]


def test_what_goes_wrong_is_one_line_and_the_chat_goes_on(chat: Chat) -> None:
    lines = ["/read none.txt", "/open\tnone", f"/open {chat.book}", f"/save {chat.book.parent}/none/x", "/lazy 99:0.5"]
    out = chat(*lines, "/docs now", "/read", b"\xff\xfe", "/explode", "Who?", code=2)
    assert len(out) == 1
    assert len(chat.errors) == 9
    assert "none.txt cannot be read: No such file" in chat.errors[0]
    assert "none cannot be read" in chat.errors[1]
    assert "is no saved document" in chat.errors[2]
    assert "outside of the model" in chat.errors[4]
    assert "/docs: expected nothing after it" in chat.errors[5]
    assert "/read: expected FILE after it" in chat.errors[6]
    assert "not UTF-8" in chat.errors[7]
    assert all(f"/{name}" in chat.errors[8] for name in COMMANDS)


def test_lazy_begins_a_new_conversation(chat: Chat) -> None:
    chat(f"/read {chat.book}", "/lazy off", "/docs", "Who?", "/lazy 3:0.5", "/lazy on", "/lazy auto")
    assert "nothing has been read yet" in chat.err
    changes = re.findall(r"^a new conversation, all that was read and said is forgotten: (.*)$", chat.err, re.M)
    assert changes == [
        "everything is computed",
        "tokens are left behind by the schedule 3:0.5, from 16 tokens on",
        "tokens are left behind by the schedule 2:0.5,4:0.2",
        "tokens are left behind by the schedule 2:0.5,4:0.2, from 16 tokens on",
    ]
    assert re.search(r"^kept (\d+)/\1 · revived 0 ", chat.err, re.M)


def test_the_letters_of_mlx_lm(chat: Chat) -> None:
    out = chat("Who?", "r", "Who?", "h", "q", "never asked")
    assert len(out) == 2 and out[0] == out[1]
    assert all(re.search(rf"^/{name}\b", chat.err, re.M) for name in COMMANDS)


def test_a_backslash_goes_on_in_the_next_line(chat: Chat) -> None:
    with chat.session() as session:
        expected = said(session, "Who lights\nthe lamp?")
    assert chat("Who lights\\", "the lamp?") == expected
    assert len(chat(" /is this a question?")) == 1
    assert len(chat("what ends\\")) == 1


def test_statistics(chat: Chat) -> None:
    chat("/stats", f"/read {chat.book}", "Who?", "/stats")
    assert len(re.findall(r"^Conversation: \d+ tokens, \d messages$", chat.err, re.M)) == 2
    assert re.search(r"^Computed: \d+ in layers 0-1, \d+ from layer 2 on, .* revived( \(\d+\.\d%\))?$", chat.err, re.M)


def test_too_much_is_refused_and_the_chat_goes_on(chat: Chat) -> None:
    assert chat(f"/read {chat.book}", "/stats", flags=["--max-memory", "10kB"], code=2) == []
    assert re.search(r"memory: \d+ tokens need about [\d.]+ MB", chat.errors[0])
    assert "Conversation: 0 tokens" in chat.err


@pytest.mark.parametrize("flags", [["--max-kv-size", "100"], ["--pipeline"], ["--draft-model", "x"]], ids=" ".join)
def test_flags_that_cannot_be_served(chat: Chat, flags: list[str]) -> None:
    assert chat("Who?", flags=flags, code=2) == []
    assert chat.errors[0].startswith(f"lazymlx: error: {flags[0]}: ")


def test_a_closed_stdin_is_the_end(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", "--model", str(chat.folder)]) == 0


def test_a_terminal_is_shown_no_control_characters() -> None:
    assert "a\x1b[2Jb\tc\n\x07\x9bd é".translate(CONTROL) == "a[2Jb\tc\nd é"


def test_completion(tmp_path: Path) -> None:
    (tmp_path / "book.txt").touch()
    (tmp_path / "books").mkdir()
    assert complete("/re") == ["/read", "/retry", "/reset"]
    assert complete(f"/read {tmp_path}/bo") == [f"/read {tmp_path}/book.txt", f"/read {tmp_path}/books/"]
    assert complete(f"/save {tmp_path}/") == [f"/save {tmp_path}/book.txt", f"/save {tmp_path}/books/"]
    assert complete(f"/read {tmp_path}/none/x") == complete("/docs b") == complete("/what b") == complete("who") == []


def test_a_tab_looks_for_completions_once() -> None:
    looked = []
    nth = one_by_one(lambda text: looked.append(text) or [f"{text}{n}" for n in range(3)])
    assert [nth("a", n) for n in range(4)] == ["a0", "a1", "a2", None]
    assert [nth("b", 0), nth("b", 1)] == ["b0", "b1"]
    assert looked == ["a", "b"]


def test_how_things_are_stored_does_not_hang_on_what_is_left_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/lazy off` keeps `--kv-bits`."""
    held = []
    for flags in ([], ["--kv-bits", "8", "--quantized-kv-start", "0"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/lazy off\nWho?\n/stats\n")))
        assert main(["chat", "-m", "3", *flags]) == 0
        held += re.findall(r"Memory: (.*?) MB of keys", capsys.readouterr().err)
    assert float(held[1]) < float(held[0]) / 2


def test_what_would_change_a_saved_document_is_refused(chat: Chat) -> None:
    chat("Who?", f"/save {chat.saved}")
    for flags in (["--schedule", "2:0.5"], ["--lazy", "off"], ["--system-prompt", "Be brief."]):
        assert chat("Who?", flags=["--document", str(chat.saved), *flags], code=2) == []
        assert len(chat.errors) == 1 and "--document" in chat.errors[0]


def test_the_history_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = history_file()
    assert path == tmp_path / "cache" / "lazymlx" / "chat_history"
    assert load_history(path) == []
    previous = os.umask(0)
    append_history(path, "one\ntwo é")
    os.umask(previous)
    path.write_text(path.read_text() + 'no JSON\n{"a": 1}\n')
    path.chmod(0o644)
    append_history(path, "three")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_history(path) == ["one\ntwo é", "three"]
    for n in range(2 * HISTORY):
        append_history(path, str(n))
    assert load_history(path) == [str(n) for n in range(HISTORY, 2 * HISTORY)]
    assert len(path.read_text().splitlines()) == HISTORY


def test_a_history_that_cannot_be_kept_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    append_history(tmp_path / "file" / "history", "said")
    assert load_history(tmp_path) == []


def test_the_default_schedule_is_told_of_once(chat: Chat) -> None:
    chat(f"/read {chat.book}", "Who keeps the key?", "And who keeps the lamp?", flags=["--min-tokens", "16"])
    assert chat.err.count("no schedule is stored for this model") == 1
