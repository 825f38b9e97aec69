"""The way out: feeder, lanes, attempts and outcomes."""
