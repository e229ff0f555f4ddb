"""How a model is read, scored and judged."""
