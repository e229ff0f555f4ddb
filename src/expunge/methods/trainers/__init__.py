"""How a base and its gold are trained: a file exports `train`, and `check` where not every model and data will do."""
