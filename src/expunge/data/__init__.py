"""Examples, splits and their pairing: where data come from and what may meet in a step."""
