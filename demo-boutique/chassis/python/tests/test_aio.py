import asyncio
import unittest

import grpc
from boutique.v1.chaos_pb2 import Knobs

from chassis.aio import Faults
from chassis.faults import WORK_MAX
from chassis.refusal import Refusal


class FaultsTest(unittest.IsolatedAsyncioTestCase):
    async def test_the_line_for_the_slots_has_an_end(self):
        faults = Faults(Knobs(slots=1, service_ms=60_000))
        waiting = [asyncio.create_task(faults.before()) for _ in range(WORK_MAX)]
        while faults._working < WORK_MAX:
            await asyncio.sleep(0)
        with self.assertRaises(Refusal) as raised:
            await asyncio.wait_for(faults.before(), 5)
        self.assertEqual(raised.exception.code, grpc.StatusCode.RESOURCE_EXHAUSTED)

        await faults.set(Knobs())
        while faults._working > 1:  # the one that is at work
            await asyncio.sleep(0)
        await faults.set(Knobs(slots=2))
        await faults.before()
        self.assertEqual(sum(call.done() for call in waiting), WORK_MAX - 1)


if __name__ == "__main__":
    unittest.main()
