"""A package called vllm that pip can install: a server with vLLM's routes and options, and no model in it.

With `GATE` in its environment, a folder, it is loaded when there is a file `loaded`, and goes on with its answers after
their first piece when there is a file `go`.
"""

from __future__ import annotations

import subprocess
import sysconfig
import zipfile
from pathlib import Path

SERVER = """
import argparse, http.server, json, os, signal, sys, threading, time

parser = argparse.ArgumentParser()
for name in ("model", "served-model-name", "host", "max-model-len"):
    parser.add_argument(f"--{name}")
parser.add_argument("--port", type=int)
parser.add_argument("--lora-modules", nargs="*")
parser.add_argument("--config", type=json.loads, default={})
parser.add_argument("--enforce-eager", action="store_true")
given = parser.parse_args()
if given.model.endswith("broken"):
    print("(EngineCore pid=1) ERROR [core.py:1] ValueError: no weights in " + given.model, flush=True)
    raise RuntimeError("Engine core initialization failed. See root cause above.")
print("Loading safetensors checkpoint shards:  40%|####      | 2/5", end="\\r", flush=True)
gate = os.environ.get("GATE")


def wait(name):
    while gate and not os.path.exists(os.path.join(gate, name)):
        time.sleep(0.01)


wait("loaded")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        model = {"id": given.served_model_name, "max_model_len": int(given.max_model_len or 100)}
        about = {"argv": sys.argv[1:], "path": sys.path, "cwd": os.getcwd(), "pid": os.getpid()}
        self.whole({"object": "list", "data": [model], **about})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            if body.get("stream"):
                self.stream(body)
            else:
                choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                self.whole({"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                            "choices": [choice], "usage": usage})
        except OSError:
            pass

    def stream(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        count = body.get("max_tokens") or 5
        for number in range(count):
            end = "length" if number + 1 == count else None
            choice = {"index": 0, "delta": {"content": f"{os.getpid()} "}, "finish_reason": end}
            item = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                    "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(item).encode() + b"\\n\\n")
            wait("go")
        self.wfile.write(b"data: [DONE]\\n\\n")
        self.close_connection = True

    def whole(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


Server((given.host, given.port), Handler).serve_forever()
"""

METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
FILES = {
    "vllm/__init__.py": "",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/api_server.py": SERVER,
    "vllm-1.0.dist-info/METADATA": METADATA,
    "vllm-1.0.dist-info/WHEEL": WHEEL,
}


def write_wheel(folder: Path) -> Path:
    """The package as a file that pip installs without a network."""
    wheel = folder / "vllm-1.0-py3-none-any.whl"
    record = "".join(f"{name},,\n" for name in (*FILES, "vllm-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**FILES, "vllm-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def make_environment(venv: Path, python: str) -> None:
    """A virtual environment with the pip that the tests' own has; to install one takes seconds."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "pip.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
