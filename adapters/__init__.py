"""What a model is, and the ways to reach one; imports no other room."""
