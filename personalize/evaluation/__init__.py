"""Metrics, statistics and gates: numbers in, verdict out. Only `encoders` touches torch."""
