"""The Web UI: a client of the HTTP API for people with a browser, in a process of its own."""
