"""Several processes that hold one model together: who they are, what they exchange, how all of them end.

Outside, use `group.Ranks` and, to become one of them, `join`.
"""
