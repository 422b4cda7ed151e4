"""The one operation: who is scored, who is left behind, who comes back. Outside, use `model.Model`, and
for a scorer of one's own `selection`; `calibrate` also runs single stages (`stages.run_stage`).
"""
