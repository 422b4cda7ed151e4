"""Arithmetic on arrays and layers. It knows nothing of leaving tokens behind. Outside, use
`network.Network`, `maps.Maps`, and for layers one by one `loop.run_layers`; families are listed in `families`.
"""
