"""Saved documents: they come back bit by bit the same, or not at all."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from talking import DOCUMENT, LAZY, LOOKING, answer, session, speller, talker
from test_session import ALL, DENSE, OTHER, QUESTION, assert_same, read_session, state_of

from lazymlx.config import LazyConfig
from lazymlx.engine.selection import AttentionScorer
from lazymlx.errors import DocumentError
from lazymlx.sealed import is_sealed, read_sealed, write_sealed
from lazymlx.session.saved import model_fingerprint
from lazymlx.session.session import Session

ROOT = Path(__file__).parents[2]


def opened(path: Path, lazy: LazyConfig = LAZY) -> Session:
    return Session.open(path, talker(lazy), speller())


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "book.lazydoc"
    read_session().save(path)
    return path


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("lazy", [LAZY, LOOKING, ALL, DENSE], ids=["default", "looking", "paper", "dense"])
def test_a_session_comes_back_the_same(lazy, turns, tmp_path):
    s = read_session(lazy, system="be brief.")
    for turn in range(turns):
        answer(s, OTHER, turn + 1)
    s.save(tmp_path / "book.lazydoc")
    # the file's configuration counts, not the model's; maps are the model's
    again = opened(tmp_path / "book.lazydoc", LOOKING if lazy == LOOKING else DENSE)
    assert_same(state_of(again), state_of(s))
    assert again.messages == s.messages
    for question in (QUESTION, OTHER):
        (text, logprobs), (other, expected) = answer(again, question), answer(s, question)
        assert text == other
        np.testing.assert_array_equal(logprobs, expected)
    assert again.undo() == OTHER


def test_a_keep_comes_back_to_its_last_digit(tmp_path):
    session(LazyConfig([(2, 1 / 3)])).save(tmp_path / "book")
    assert opened(tmp_path / "book").config.cuts == ((2, 1 / 3),)


def test_a_session_without_a_word_can_be_saved(tmp_path):
    session().save(tmp_path / "empty")
    again = opened(tmp_path / "empty")
    again.read(DOCUMENT)
    assert_same(state_of(again), state_of(read_session()))


def test_saving_changes_nothing(tmp_path):
    s, other = read_session(), read_session()
    for asked in (s, other):
        answer(asked, QUESTION)
    s.save(tmp_path / "book")
    np.testing.assert_array_equal(answer(s, OTHER)[1], answer(other, OTHER)[1])


def test_every_cut_is_noticed(saved):
    whole = saved.read_bytes()
    for length in (*range(0, 200, 13), *range(200, len(whole), 997), len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(DocumentError) as refusal:
            opened(saved)
        assert "\n" not in str(refusal.value)
    assert "cut short" in str(refusal.value)


def test_every_altered_byte_is_noticed(saved):
    whole = saved.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    places = [*range(0, 8), *range(8, 8 + header, 41), *range(8 + header, len(whole), 1511), len(whole) - 1]
    for place in places:
        altered = bytearray(whole)
        altered[place] ^= 1
        saved.write_bytes(altered)
        with pytest.raises(DocumentError):
            opened(saved)
    saved.write_bytes(whole + b" ")
    with pytest.raises(DocumentError, match="altered"):
        opened(saved)
    saved.write_bytes(whole)
    opened(saved)


@pytest.mark.parametrize("bit", [0, 6])
def test_every_byte_of_the_header_counts(tmp_path, bit):
    path = tmp_path / "file"
    write_sealed(path, {"a": mx.zeros(3)}, {"format": "test", "version": "1"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << bit
        path.write_bytes(altered)
        with pytest.raises(DocumentError):
            read_sealed(path, "test", "1")


def test_another_model_is_refused(saved):
    model = talker()
    norm = model.model.layers[3].input_layernorm
    norm.weight = norm.weight * 1.001
    with pytest.raises(DocumentError, match="another model"):
        Session.open(saved, model, speller())
    model = talker()
    model.set_dtype(mx.float16)
    with pytest.raises(DocumentError, match="another model"):
        Session.open(saved, model, speller())
    assert model_fingerprint(talker()) == model_fingerprint(talker(DENSE))


def test_another_version_is_refused_before_anything_else(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole.replace(b'"version":"4"', b'"version":"1"')[:-100])
    with pytest.raises(DocumentError, match="version 1 .* reads 4; read the text again"):
        opened(saved)


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "other"
    for content in (b"", b"hello, world", b"\xff" * 100, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 4) + b"null"):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match="no saved document"):
            opened(file)
    for table in ([], {"__metadata__": ["format"]}, {"__metadata__": {"format": 1}}, {"__metadata__": {}, "a": [1]}):
        file.write_bytes(struct.pack("<Q", len(json.dumps(table))) + json.dumps(table).encode())
        with pytest.raises(DocumentError, match="no saved document"):
            opened(file)
    with file.open("wb") as weights:
        mx.save_safetensors(weights, {"a": mx.zeros(3)}, {"format": "mlx"})
    with pytest.raises(DocumentError, match="no saved document"):
        opened(file)
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        opened(tmp_path / "none")
    with pytest.raises(DocumentError, match="cannot be read"):
        opened(tmp_path)


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(DocumentError, match="cannot be written: No such file"):
        session().save(tmp_path / "none" / "book")


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        with pytest.raises(DocumentError, match="it is no file"):
            session().save(place)
    assert pipe.is_fifo()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not is_sealed(tmp_path / "pipe", "test")
    with pytest.raises(DocumentError, match="cannot be read: it is no file"):
        opened(tmp_path / "pipe")


def test_a_link_stays_one(tmp_path):
    link, book = tmp_path / "link", tmp_path / "book"
    link.symlink_to(book)
    session().save(link)
    session().save(link)
    assert link.is_symlink() and book.is_file()
    opened(link)


def test_a_scorer_of_one_s_own_cannot_be_saved(tmp_path):
    own = LazyConfig("2:0.4", scorer=AttentionScorer())
    with pytest.raises(DocumentError, match="scorer"):
        session(own).save(tmp_path / "book")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DocumentError, match="No space left"):
        session().save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    load = mx.load

    def replaced(file, **options):
        write_sealed(path, {"a": mx.full((1000,), 2)}, {"format": "test", "version": "1", "n": "2"})
        return load(file, **options)

    write_sealed(path, {"a": mx.full((1000,), 1)}, {"format": "test", "version": "1", "n": "1"})
    monkeypatch.setattr(mx, "load", replaced)
    arrays, header = read_sealed(path, "test", "1")
    assert header["n"] == "1" and (np.array(arrays["a"]) == 1).all()
    arrays, header = read_sealed(path, "test", "1")
    assert header["n"] == "2" and (np.array(arrays["a"]) == 2).all()


def test_tokens_that_the_header_does_not_know_are_refused(saved):
    arrays, header = read_sealed(saved, "lazymlx document", "4")
    write_sealed(saved, {**arrays, "tokens": arrays["tokens"][::-1]}, header)
    with pytest.raises(DocumentError, match="other tokens"):
        opened(saved)


SAVER = """
import mlx.core as mx
from lazymlx.sealed import write_sealed
print("ready", flush=True)
n = 1
while True:
    n += 1
    write_sealed({path!r}, {{"a": mx.full((100_000,), n)}}, {{"format": "test", "version": "1", "n": str(n)}})
"""


@pytest.mark.parametrize("after_s", [0.0, 0.011, 0.037, 0.102])
def test_killing_a_save_leaves_a_whole_file(tmp_path, after_s):
    """A process saves over a file again and again, and is killed at some moment of it."""
    path = tmp_path / "file"
    write_sealed(path, {"a": mx.full((100_000,), 1)}, {"format": "test", "version": "1", "n": "1"})
    process = subprocess.Popen([sys.executable, "-c", SAVER.format(path=str(path))], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    arrays, header = read_sealed(path, "test", "1")
    assert (np.array(arrays["a"]) == int(header["n"])).all()


def test_killing_before_the_move_leaves_the_old_file(saved):
    before = saved.read_bytes()
    code = "import os, signal\nos.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += SAVER.format(path=str(saved))
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert saved.read_bytes() == before
    opened(saved)


def test_the_header_says_what_the_file_is(saved):
    raw = saved.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])["__metadata__"]
    assert header["format"] == "lazymlx document" and header["version"] == "4"
    assert header["schedule"] == "2:0.4,4:0.2"
    assert int(header["tokens"]) == len(read_session().tokens)
    assert json.loads(header["config"])["window"] == LAZY.window
