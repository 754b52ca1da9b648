# The least an asynchronous Python worker can be: an event loop whose reader makes a task of each frame (4-byte big-endian
# length, then JSON) on file descriptor 0. Run by `python -c`.
import asyncio
import json
import os


async def echo(x):
    await asyncio.sleep(0)
    return x


async def answer(body, loads=json.loads, dumps=json.dumps, write=os.write):
    body = dumps(await echo(loads(body))).encode()
    reply = len(body).to_bytes(4, "big") + body
    sent = write(0, reply)
    while sent < len(reply):
        reply = reply[sent:]
        sent = write(0, reply)


async def serve():
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    tasks = set()
    buffer = b""

    def readable():
        nonlocal buffer
        data = os.read(0, 65536)
        if not data:
            loop.remove_reader(0)
            ended.set_result(None)
        buffer = buffer + data if buffer else data
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if len(buffer) < end:
                break
            task = loop.create_task(answer(buffer[4:end]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            buffer = buffer[end:]

    loop.add_reader(0, readable)
    await ended


asyncio.run(serve())
