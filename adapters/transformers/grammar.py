"""Forms an answer must have, as masks over the next token; computed by llguidance."""
