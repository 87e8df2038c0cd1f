"""The local engine: Hugging Face models run in a process of their own."""
