"""Programs to copy from; each runs as it is beside `make serve`."""
