"""Text completion, without chat: the model goes on where the prompt ends."""

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
prompt = "Once upon a time in a distant galaxy"

print(prompt, end="", flush=True)
for chunk in client.completions.create(model="bundled", prompt=prompt, max_tokens=60, stream=True):
    print(chunk.choices[0].text, end="", flush=True)
print()
