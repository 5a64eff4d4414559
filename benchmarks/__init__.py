"""Cases of ``python -m benchmarks``, one module for each of its subjects.

A module offers ``cases() -> list[Case]``; its inputs are made when they are first used, because a
process of its own measures the memory of each contender.
"""
