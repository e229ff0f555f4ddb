"""The lowest floor, which every other may use: contracts, cards, registry, request, errors, files."""
