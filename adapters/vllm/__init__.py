"""Models of vLLM, and of other servers that speak OpenAI's API: one adapter over one server or several."""
