"""The small chat model that comes with the program."""
