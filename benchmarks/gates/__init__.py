"""Does the verdict let a broken model pass, or a good one fail? See `benchmarks.gates.__main__`."""
