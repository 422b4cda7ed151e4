"""One document, many questions. Outside, use `session.Session`."""
