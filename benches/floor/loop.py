# The least a Python worker can be: frames (4-byte big-endian length, then JSON) on file descriptor 0,
# decoded and encoded by the json module, nothing else. Run by `python -c`.
import json
import os


def serve(read, write, loads, dumps):
    buffer = b""
    while True:
        data = read(0, 65536)
        if not data:
            return
        buffer = buffer + data if buffer else data
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if len(buffer) < end:
                break
            body = dumps(loads(buffer[4:end])).encode()
            buffer = buffer[end:]
            reply = len(body).to_bytes(4, "big") + body
            sent = write(0, reply)
            while sent < len(reply):
                reply = reply[sent:]
                sent = write(0, reply)


serve(os.read, os.write, json.loads, json.dumps)
