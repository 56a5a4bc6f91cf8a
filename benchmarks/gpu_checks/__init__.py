"""The checks of ``benchmarks/gpu.py``; `frame` runs them, `bench` has their common parts."""
