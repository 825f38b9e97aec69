"""The whole way of some thousand messages on this machine, shown: `python -m demo`, or `make demo`."""
