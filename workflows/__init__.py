"""The compose file and what runs it; imports adapters."""
