"""Ways in for people: the commands and what they start."""
