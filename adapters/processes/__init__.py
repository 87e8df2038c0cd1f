"""Commands and servers of this machine: run, watched, started again, and ended with everything they started."""
