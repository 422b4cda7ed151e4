"""The state of a conversation: keys and values, the aux cache, turns, undo. Outside, use `LazyCache` and `Mark`."""
