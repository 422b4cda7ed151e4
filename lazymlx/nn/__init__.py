"""Arithmetic on arrays and layers. It knows nothing of leaving tokens behind. Outside, use `Network`."""
