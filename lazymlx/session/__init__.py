"""One document, many questions. Outside, use `session.Session`; the server also reads saved files (`saved`)
and renders transcripts (`transcript`).
"""
