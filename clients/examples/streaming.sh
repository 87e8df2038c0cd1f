#!/bin/sh
# A streamed answer with nothing but curl; -N shows each piece when it comes.
curl -sSN http://127.0.0.1:8080/v1/chat/completions \
    -H "Content-Type: application/json" \
    -d '{
        "model": "bundled",
        "messages": [{"role": "user", "content": "Explain quantum computing in simple terms."}],
        "stream": true
    }'
