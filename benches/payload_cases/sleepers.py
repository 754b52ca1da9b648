# So many sleeps of 100 ms at once (the argument), each time that a byte comes on file descriptor 0; then a byte is written.
# Run by `python -c`.
import asyncio
import os
import sys


async def sleep(count):
    await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(count)])


loop = asyncio.new_event_loop()
while os.read(0, 1):
    loop.run_until_complete(sleep(int(sys.argv[1])))
    os.write(0, b"!")
