"""Metrics, statistics and gates: numbers in, verdict out. Only `judges` and `towers` touch torch."""
