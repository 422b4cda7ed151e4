"""What pruning costs in quality: tasks x policies x lengths, every answer kept. Outside, use `run.Matrix` and
what it is given; calibration shares `agreement` and `encoding`.

`tasks` makes samples of any length from prose that no embedded model was trained on, `published` takes them from
published sets; `policies` are lazymlx and its rivals behind one interface; `run` asks, `report` adds up.
"""
