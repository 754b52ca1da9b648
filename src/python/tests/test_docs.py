"""The examples of docs/python-workers.md start in a worker; those that can be called are."""

from __future__ import annotations

import re
import unittest

from tests.support import HERE, PROGRESS, RESULT, Worker

GUIDE = HERE.parents[2] / "docs" / "python-workers.md"


class Guide(unittest.TestCase):
    def test_examples(self) -> None:
        examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        calls = {
            "word_count": ["to be or not"],
            "later": [0],
            "describe": ["pen"],
            "work": [[1, 2]],
            "pi": [1],
            "store": ["text"],
            "fetch": ["/"],
        }
        results = {}
        for example in examples:
            with Worker(example) as worker:
                names = [one["name"] for one in worker.ready()["functions"]]
                for name in names:
                    if name in calls:
                        results[name] = worker.call(name, *calls[name])
                if "train" in names:
                    call_id = worker.send_call("train", [2], progress=True)
                    self.assertEqual([worker.answer(call_id)[0] for _ in "123"], [PROGRESS, PROGRESS, RESULT])
                if "add_to_cart" in names:
                    call_id = worker.send_call("add_to_cart", ["pen"], session="alice")
                    self.assertEqual(worker.answer(call_id), (RESULT, 1))
                if "word" in names:
                    worker.answer(worker.send_call("open_document", ["to be"], session="s"))
                    self.assertEqual(worker.answer(worker.send_call("word", [1], session="s")), (RESULT, "be"))
                self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed["stderr"], b"")
        self.assertEqual(
            results,
            {
                "word_count": 4,
                "later": "done",
                "describe": "a pen",
                "work": 2,
                "pi": 4.0,
                "store": 4,
                "fetch": {"traceparent": None},
            },
        )


if __name__ == "__main__":
    unittest.main()
