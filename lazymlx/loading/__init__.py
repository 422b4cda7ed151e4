"""From a name to a model. Outside, use `load.load`; asking for the name alone loads nothing heavy."""
