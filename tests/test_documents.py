"""Documents of every kind have a text, and what has none is refused with a way out."""

import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pdf import pdf

from lazymlx import documents
from lazymlx.documents import read_document, text_of_bytes
from lazymlx.errors import PromptError


def archive(**parts: str) -> bytes:
    """A ZIP file; a part's name has two underscores for a slash, and one for a dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, text in parts.items():
            made.writestr(name.replace("__", "/").replace("_", "."), text)
    return file.getvalue()


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
XHTML = '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html>'
PAGE = """<!DOCTYPE html><html><head><title>Home</title><style>b{}</style></head><body><script>x</script>
<h1>Lamps</h1><p>The <b>green</b> one is <a href="x">first</a>&eacute;.</p><ul><li>one_a</li></ul></body></html>"""


def docx(*paragraphs: str) -> bytes:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    return archive(word__document_xml=f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>')


def epub(*chapters: str) -> bytes:
    """A book whose files lie in another order than its chapters."""
    container = '<container xmlns="c"><rootfiles><rootfile full-path="b/p.opf"/></rootfiles></container>'
    ids = range(len(chapters))
    items = "".join(f'<item id="i{n}" href="c{n}.xhtml"/>' for n in reversed(ids))
    spine = "".join(f'<itemref idref="i{n}"/>' for n in ids)
    book = f'<package xmlns="p"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    files = {f"b__c{n}_xhtml": f"{XHTML}<body><p>{text}</p></body></html>" for n, text in enumerate(chapters)}
    return archive(**{"META-INF__container_xml": container, "b__p_opf": book, **files})


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_text_and_markdown_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.md", "\ufeff# Lamps\r\n\n* green é\n".encode())
    assert read_document(path) == "# Lamps\n\n* green é\n"


@pytest.mark.parametrize(
    "content, text",
    [
        (pdf("The harbour has two lamps.", "Green is first."), "The harbour has two lamps.\n\nGreen is first."),
        (docx("The harbour has two lamps.", "Green is first."), "The harbour has two lamps.\n\nGreen is first."),
        (epub("The harbour has two lamps.", "Green is first."), "The harbour has two lamps.\n\nGreen is first."),
        (PAGE.encode(), "# Lamps\n\nThe **green** one is firsté.\n\n* one_a"),
    ],
    ids=["pdf", "docx", "epub", "html"],
)
def test_a_document_is_known_by_its_content(tmp_path: Path, content: bytes, text: str) -> None:
    assert read_document(write(tmp_path / "book", content)) == text
    assert text_of_bytes(content, "stdin") == text


@pytest.mark.parametrize(
    "content, what",
    [
        (pdf(""), "has no text in it"),
        (b"<html><body></body></html>", "has no text in it"),
        (pdf("text")[:200], "cannot be read as a PDF"),
        (b"%PDF-1.4\n" + bytes(range(256)), "cannot be read as a PDF"),
        (archive(word__document_xml="<w"), "cannot be read as a docx"),
        (archive(**{"META-INF__container_xml": "<a/>"}), "cannot be read as an EPUB"),
        (archive(other="text"), "unpack it"),
        (docx("text")[:60], "is a damaged docx, EPUB or other archive"),
        (b"\xd0\xcf\x11\xe0old", "save it as docx or PDF"),
        (b"text" + bytes(9), r"is not UTF-8 text \(byte 4\)"),
        (b"\x89PNG\xff", "is not UTF-8 text .* a text with iconv, a picture with OCR"),
    ],
    ids=[
        "empty-pdf",
        "empty-html",
        "cut-pdf",
        "no-pdf",
        "no-docx",
        "no-epub",
        "zip",
        "cut-docx",
        "doc",
        "zeros",
        "png",
    ],
)
def test_what_has_no_text_is_refused_with_a_way_out(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(PromptError, match=f"document: .*book.* {what}"):
        read_document(write(tmp_path / "book", content))


@pytest.mark.parametrize(
    "content, library",
    [(pdf("text"), "pypdf"), (docx("text"), "mammoth"), (PAGE.encode(), "markdownify")],
    ids=["pdf", "docx", "html"],
)
def test_without_its_library_a_document_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch, content: bytes, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PromptError, match=rf"takes {library}; install it with: pip install 'lazymlx\[documents\]'"):
        text_of_bytes(content, "book")


def test_a_folder_is_its_documents_by_name(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="is a folder without documents; expected files ending with .txt"):
        read_document(tmp_path)
    for name, content in {"b.pdf": pdf("Two."), "a.txt": b"One.", "weights.bin": b"\xff"}.items():
        write(tmp_path / name, content)
    (tmp_path / "c.txt").mkdir()
    assert read_document(tmp_path) == "a.txt\n\nOne.\n\nb.pdf\n\nTwo."


class Page(BaseHTTPRequestHandler):
    """Answers /page, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/page" else 404)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_what_it_leads_to(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert read_document(f"{server}/page").startswith("# Lamps")
    with pytest.raises(PromptError, match="none cannot be fetched: Not Found; download it, and give the file"):
        read_document(f"{server}/none")


def test_what_never_ends_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1 << 20)
    with pytest.raises(PromptError, match="^document: /dev/zero has more than 1 MB; give a part of it"):
        read_document(Path("/dev/zero"))
