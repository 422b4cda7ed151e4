"""What a chat reads: text, Markdown and PDF."""

import sys
from pathlib import Path

import pytest

from lazymlx.cli.documents import path_of, read_document
from lazymlx.errors import PromptError


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        fonts = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {fonts} /Contents {5 + 2 * n} 0 R >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    file, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size, start = len(objects) + 1, len(file)
    file += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF"
    )
    return file.encode()


def test_text_and_markdown_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("\ufeff# Lamps\n\n* green é\n", encoding="utf-8")
    assert read_document(path) == "# Lamps\n\n* green é\n"


def test_a_pdf_is_known_by_its_content(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    path = tmp_path / "book"
    path.write_bytes(pdf("The harbour has two lamps.", "The green one is first."))
    assert read_document(path) == "The harbour has two lamps.\n\nThe green one is first."


@pytest.mark.parametrize(
    "content, what",
    [
        (pdf(""), "has no text in it"),
        (pdf("text")[:200], "cannot be read as a PDF"),
        (b"%PDF-1.4\n" + bytes(range(256)), "cannot be read as a PDF"),
    ],
)
def test_pdfs_without_text_and_damaged_ones_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    pytest.importorskip("pypdf")
    path = tmp_path / "book.pdf"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=what):
        read_document(path)


def test_without_pypdf_a_pdf_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    path = tmp_path / "book.pdf"
    path.write_bytes(pdf("text"))
    with pytest.raises(PromptError, match=r"takes pypdf; install it with: pip install 'lazymlx\[pdf\]'"):
        read_document(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(PromptError, match="is not UTF-8 text"):
        read_document(path)
    with pytest.raises(PromptError, match="Is a directory"):
        read_document(tmp_path)


def test_paths_are_read_as_they_are_or_as_a_shell_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "the keeper's book.txt"
    path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (str(path), f'"{path}"', str(path).replace(" ", r"\ ").replace("'", r"\'"), "~/the keeper's book.txt"):
        assert path_of(words) == path
    assert path_of("the keeper's diary") == Path("the keeper's diary")
    assert path_of("two words") == Path("two words")


def test_names_that_no_file_can_have_are_a_sentence() -> None:
    for words in ("a" * 5000, "~nobody of that name/book.txt"):
        with pytest.raises(PromptError, match="cannot be read"):
            read_document(path_of(words))
    with pytest.raises(PromptError, match="zero byte"):
        path_of("a\0b")
