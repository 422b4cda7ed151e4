"""The command line: `main` finds the command, a module per command does it, the rest is shared between them.

A command's module offers `add_arguments(parser)` and `run(args) -> exit code`, and imports nothing heavy before `run`,
so that help is instant. The answer goes to stdout; whatever else there is to say goes to stderr.
"""
