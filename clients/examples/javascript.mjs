// A streamed answer in JavaScript with nothing to install: node javascript.mjs.
const response = await fetch("http://127.0.0.1:8080/v1/chat/completions", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    model: "bundled",
    messages: [{ role: "user", content: "Explain quantum computing in simple terms." }],
    stream: true,
  }),
});
if (!response.ok) throw new Error((await response.json()).error.message);

const decoder = new TextDecoder();
let unread = "";
for await (const bytes of response.body) {
  unread += decoder.decode(bytes, { stream: true });
  const lines = unread.split("\n");
  unread = lines.pop(); // the line that is not complete yet
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const chunk = JSON.parse(line.slice("data: ".length));
    if (chunk.error) throw new Error(chunk.error.message);
    process.stdout.write(chunk.choices[0]?.delta.content ?? "");
  }
}
console.log();
