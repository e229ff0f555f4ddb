"""Pure functions from readouts to numbers: each file is a metric, and its stem is its name."""
