"""A document's text, whatever it comes in: text, Markdown, PDF, docx, HTML or EPUB; a file, a folder or an address.

What it is shows in its first bytes, not in its name. PDF is read by pypdf, docx by mammoth (which makes HTML of it),
and HTML by markdownify: headings, lists and tables stay what they are. All of them come with the extra `documents`.
"""

import io
import logging
import os
import posixpath
import re
import zipfile
from collections.abc import Callable
from importlib import import_module
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.parse import unquote
from urllib.request import urlopen
from xml.etree import ElementTree

from .errors import PromptError
from .messages import BREAK

ENDINGS = (".txt", ".md", ".markdown", ".rst", ".pdf", ".docx", ".html", ".htm", ".xhtml", ".epub")  # in a folder
ADDRESS = re.compile(r"https?://", re.IGNORECASE)
TIMEOUT_S = 30
MOST_BYTES = 1 << 29  # of a document, pictures included: of plain text, a hundred million tokens
HTML = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
HEAD = 4096  # bytes in which a page says that it is one
OLD_OFFICE = b"\xd0\xcf\x11\xe0"


def read_document(source: str | os.PathLike) -> str:
    """The text of a file, of a folder's documents (not its subfolders'), or of what an address leads to.

    Args:
        source: a path, or an address that begins with http:// or https://.

    Raises:
        PromptError: it cannot be read, or has no text.
    """
    if isinstance(source, str) and ADDRESS.match(source):
        return text_of_bytes(_fetched(source), source)
    path = Path(os.path.expanduser(source))
    try:
        if path.is_dir():
            return _text_of_folder(path)
        with path.open("rb") as file:
            return text_of_bytes(all_of(file, str(path)), str(path))
    except OSError as error:
        raise PromptError(f"document: {path} cannot be read: {error.strerror}") from None


def all_of(file: BinaryIO | BufferedIOBase, name: str) -> bytes:
    """The bytes of a file, a stream or an answer of the web, which may never end.

    Raises:
        PromptError: they are more than a document can have.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise PromptError(f"document: {name} has more than {MOST_BYTES >> 20} MB; give a part of it")
    return content


def text_of_bytes(content: bytes, name: str) -> str:
    """The text of a document's bytes; `name` is what an error calls it.

    Raises:
        PromptError: they cannot be read, or have no text.
    """
    kind, converter = _converter(content, name)
    if kind is None:
        return converter(content)
    try:
        text = converter(content)
    except PromptError:
        raise
    except ImportError as error:
        raise PromptError(
            f"document: {name} is {kind}, and reading that takes {error.name}; "
            "install it with: pip install 'lazymlx[documents]'"
        ) from None
    except Exception as error:  # of a damaged file, the libraries raise whatever they stumble over
        raise PromptError(f"document: {name} cannot be read as {kind}: {error}") from None
    if not text.strip():
        raise PromptError(f"document: {name} has no text in it; if its pages are pictures, run OCR over it first")
    return text


def _converter(content: bytes, name: str) -> tuple[str | None, Callable[[bytes], str]]:
    """What a document is, None for a plain text, and what makes text of it."""
    if content.startswith(b"%PDF-"):
        return "a PDF", _text_of_pdf
    if content.startswith(b"PK\x03\x04"):
        return _zipped(content, name)
    if content.startswith(OLD_OFFICE):
        raise PromptError(f"document: {name} is of an old Office format; save it as docx or PDF")
    if HTML.match(content[:HEAD]):
        return "HTML", _text_of_html
    return None, lambda content: _decoded(content, name)


def _zipped(content: bytes, name: str) -> tuple[str, Callable[[bytes], str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = set(archive.namelist())
    except zipfile.BadZipFile:
        raise PromptError(f"document: {name} is a damaged docx, EPUB or other archive; fetch it again") from None
    if "word/document.xml" in parts:
        return "a docx", _text_of_docx
    if "META-INF/container.xml" in parts:
        return "an EPUB", _text_of_epub
    raise PromptError(f"document: {name} is an archive, but no docx and no EPUB; unpack it, and give what is in it")


def _decoded(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(name, error.start) from None
    if "\0" in text:  # which UTF-8 has room for, and no text
        raise _no_text(name, content.index(0))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_text(name: str, byte: int) -> PromptError:
    return PromptError(
        f"document: {name} is not UTF-8 text (byte {byte}), nor a PDF, docx, HTML or EPUB; convert it, "
        "a text with iconv, a picture with OCR"
    )


def _text_of_pdf(content: bytes) -> str:
    pypdf = import_module("pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it comments on every small flaw
    return BREAK.join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)


def _text_of_docx(content: bytes) -> str:
    return _text_of_html(import_module("mammoth").convert_to_html(io.BytesIO(content)).value.encode())


def _text_of_html(content: bytes) -> str:
    bs4: Any = import_module("bs4")
    soup = bs4.BeautifulSoup(content, "html.parser")  # which finds out the encoding
    for tag in soup(["script", "style", "title", "noscript", "template"]):
        tag.decompose()
    for node in soup.find_all(string=lambda node: isinstance(node, bs4.element.ProcessingInstruction)):
        node.extract()  # <?xml ... ?>, which would be text otherwise
    converter = import_module("markdownify").MarkdownConverter(
        strip=["a", "img"], heading_style="ATX", escape_asterisks=False, escape_underscores=False
    )
    return re.sub(r"\n{3,}", BREAK, converter.convert_soup(soup)).strip()


def _text_of_epub(content: bytes) -> str:
    """Its chapters, in the order in which they are read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        package = next(node.attrib["full-path"] for node in container.iter() if node.tag.endswith("}rootfile"))
        book = ElementTree.fromstring(archive.read(package))
        places = {node.attrib["id"]: node.attrib["href"] for node in book.iter() if node.tag.endswith("}item")}
        order = [places[node.attrib["idref"]] for node in book.iter() if node.tag.endswith("}itemref")]
        folder = posixpath.dirname(package)
        files = [posixpath.normpath(posixpath.join(folder, unquote(place))) for place in order]
        return BREAK.join(text for text in (_text_of_html(archive.read(file)) for file in files) if text)


def _text_of_folder(folder: Path) -> str:
    """Its documents by name, each below its name."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    if not files:
        raise PromptError(
            f"document: {folder} is a folder without documents; expected files ending with {', '.join(ENDINGS)}"
        )
    return BREAK.join(f"{file.name}{BREAK}{read_document(file)}" for file in files)


def _fetched(address: str) -> bytes:
    try:
        with urlopen(address, timeout=TIMEOUT_S) as response:
            return all_of(response, address)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PromptError(f"document: {address} cannot be fetched: {reason}; download it, and give the file") from None
