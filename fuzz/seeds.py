"""Makes a corpus to begin with out of the golden frames: `seeds.py frames|replies|stacks`."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
HEAD_BYTES = 24
KINDS = {5: 0, 2: 1, 18: 2, 4: 3, 6: 4, 17: 5}  # as `replies` chooses them

target = sys.argv[1]
corpus = HERE / "corpus" / target
for file in (HERE.parent / "tests" / "golden").glob("*.hex"):
    frame = bytes.fromhex(file.read_text())
    if target == "frames":
        (corpus / file.stem).write_bytes(b"\x0b\x01" + frame)
    elif target == "replies" and len(frame) > HEAD_BYTES and frame[4] in KINDS:
        (corpus / file.stem).write_bytes(bytes([KINDS[frame[4]]]) + frame[HEAD_BYTES:])
if target == "stacks":
    stack = 'Stack (most recent call first):\n  File "app.py", line 1 in f\n  File "<hatchery>/_worker.py", line 1 in run\n'
    (corpus / "stack").write_text(stack)
