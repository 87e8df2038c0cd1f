"""A conversation through the openai SDK: each answer streams, and the next question knows what was said before."""

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": "You are a helpful assistant."}]

for question in ("Explain quantum computing in simple terms.", "My name is Ada. What can you do?", "What is my name?"):
    print(f"> {question}")
    messages.append({"role": "user", "content": question})
    answer = ""
    for chunk in client.chat.completions.create(model="bundled", messages=messages, stream=True):
        piece = chunk.choices[0].delta.content or ""
        print(piece, end="", flush=True)
        answer += piece
    messages.append({"role": "assistant", "content": answer})
    print("\n")
