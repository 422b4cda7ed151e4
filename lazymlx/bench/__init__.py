"""How fast, how large, against what: measurements of lazymlx beside stock mlx-lm, in one process, on the same weights.
Outside, use `measure.Bench` and `results`.

    shapes   configurations of well-known models, by name
    models   the pair to compare: our model and stock mlx-lm's, sharing every array of weights
    runs     one run of a prompt: time to the first token, decode rate, memory
    measure  many of them, alternating, within a budget of time
    results  the table, and the JSON that all later figures are made from
    figures  plots of a stored run
    growth   how the costs grow with the length of the prompt

Nothing here knows which device it runs on: the same code measures on Metal, CUDA and CPU.
"""
