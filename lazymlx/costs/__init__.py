"""What a prompt takes, computed in one place: rows in each stage, operations, memory. Outside,
use `flops`, `memory` and `metal`.
"""
