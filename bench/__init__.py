"""Measurements of the gateway: micro-benchmarks, load runs, and their results.

Nothing under ``gateway/`` may import this package.
"""
