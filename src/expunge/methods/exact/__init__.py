"""Models trained so that they can forget exactly."""
