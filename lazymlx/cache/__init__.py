"""The state of a conversation: keys and values, the aux cache, turns, undo. Outside, use `conversation.LazyCache` and
`undo.Mark`; `nn` and `engine` also use its rows, stages and masks, and `session` saves them.
"""
