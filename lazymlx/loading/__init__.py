"""From a name to a model. Outside, use `load.load`, which the rest serves; the command line also asks `hub`,
`stored`, `inventory` and `pretrained`. Asking for the name alone loads nothing heavy.
"""
