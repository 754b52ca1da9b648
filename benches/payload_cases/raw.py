# The least an echo can be: so many bytes (the argument) are read from the socket on file descriptor 0 into memory that is
# there already, then written back. Run by `python -c`.
import socket
import sys


def serve(size):
    with socket.socket(fileno=0) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # as the library asks
        view = memoryview(bytearray(size))
        while True:
            filled = 0
            while filled < size:
                count = connection.recv_into(view[filled:])
                if not count:
                    return
                filled += count
            connection.sendall(view)


serve(int(sys.argv[1]))
