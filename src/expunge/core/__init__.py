"""What every floor may use and what uses nothing of ours: contracts, cards, registry, request."""
