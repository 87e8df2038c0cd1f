"""The HTTP face: OpenAI's API in front of adapters it is handed."""
