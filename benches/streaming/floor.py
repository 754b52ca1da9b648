# The least a Python worker with streams can be: reads a count (4 bytes, big-endian) from file descriptor 0 and
# writes so many items there, each at once in a frame of its own (4-byte big-endian length, then JSON).
# Run by `python -c`; an argument lets so many bytes gather before they are written.
import json
import os
import sys


def serve(read, write, dumps, least):
    while True:
        count = read(0, 4)
        if not count:
            return
        pending = b""
        for x in range(int.from_bytes(count, "big")):
            body = dumps({"x": x}).encode()
            frame = len(body).to_bytes(4, "big") + body
            if least:
                pending += frame
                if len(pending) < least:
                    continue
                frame, pending = pending, b""
            sent = write(0, frame)
            while sent < len(frame):
                frame = frame[sent:]
                sent = write(0, frame)
        while pending:
            pending = pending[write(0, pending) :]


serve(os.read, os.write, json.dumps, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
