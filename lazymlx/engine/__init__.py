"""The one operation: who is scored, who is left behind, who comes back. Outside, use `Model`."""
