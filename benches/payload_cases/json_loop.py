# The least a worker for large JSON can be: frames (4-byte big-endian length, then JSON) on file descriptor 0, decoded and
# encoded by the codec that the argument names. Run by `python -c`.
import json
import socket
import sys


def codec(name):
    if name == "orjson":
        import orjson

        return orjson.loads, orjson.dumps
    decode = json.JSONDecoder().decode
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    return lambda data: decode(str(data, "utf-8")), lambda value: encode(value).encode()


def exactly(connection, size):
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            sys.exit()
        view = view[count:]
    return data


def serve(loads, dumps):
    with socket.socket(fileno=0) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # as the library asks
        while True:
            size = int.from_bytes(exactly(connection, 4), "big")
            body = dumps(loads(exactly(connection, size)))
            connection.sendall(len(body).to_bytes(4, "big") + body)


serve(*codec(sys.argv[1]))
