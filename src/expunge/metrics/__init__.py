"""Pure functions from readouts to numbers: a file is a metric, and its stem is its name."""
