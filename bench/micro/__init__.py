"""Micro-benchmarks: one part of the gateway against itself under another load."""
