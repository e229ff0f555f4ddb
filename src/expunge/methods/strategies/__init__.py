"""Aggregation strategies of a federation: one file each. How clients train, and what becomes of their updates."""
