"""How a document and a question become one message."""

BREAK = "\n\n"  # between documents, and between a document and the question


def about(document: str, question: str) -> str:
    """What the user says to have a question answered from a text; later questions about it go without the text."""
    return (document + BREAK if document else "") + f"Question: {question}"
