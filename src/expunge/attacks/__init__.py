"""What an adversary still gets: a file is an attack, and its stem is its name."""
