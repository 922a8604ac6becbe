import threading
import time
import unittest

import grpc
from boutique.v1.chaos_pb2 import Knobs

from chassis import env
from chassis.faults import Faults
from chassis.refusal import Refusal


class Caller:
    """As much of a ServicerContext as the faults look at."""

    def __init__(self) -> None:
        self._callbacks = []

    def add_callback(self, callback) -> bool:
        self._callbacks.append(callback)
        return True

    def give_up(self) -> None:
        for callback in self._callbacks:
            callback()


def until(test: unittest.TestCase, holds) -> None:
    patience = time.monotonic() + 5
    while not holds():
        test.assertLess(time.monotonic(), patience)
        time.sleep(0.001)


class FaultsTest(unittest.TestCase):
    def test_without_knobs_a_call_passes_at_once(self):
        Faults(Knobs()).before(Caller())

    def test_the_given_share_of_calls_fails_with_the_given_code(self):
        numbers = iter(range(100))
        faults, failed = Faults(Knobs(error_pct=30, code=10), percent=lambda: next(numbers)), []
        for _ in range(100):
            try:
                faults.before(Caller())
            except Refusal as refusal:
                failed.append(refusal.code)
        self.assertEqual(failed, [grpc.StatusCode.ABORTED] * 30)

    def test_a_code_of_zero_stands_for_unavailable(self):
        with self.assertRaises(Refusal) as raised:
            Faults(Knobs(error_pct=100)).before(Caller())
        self.assertEqual(raised.exception.code, grpc.StatusCode.UNAVAILABLE)

    def test_latency_and_freeze_end_early_when_the_caller_gives_up(self):
        for knobs in (Knobs(latency_ms=60_000), Knobs(freeze=True)):
            caller = Caller()
            threading.Timer(0.05, caller.give_up).start()
            with self.assertRaises(Refusal) as raised:
                Faults(knobs).before(caller)
            self.assertEqual(raised.exception.code, grpc.StatusCode.CANCELLED)

    def test_a_frozen_call_goes_on_when_it_thaws(self):
        faults, done = Faults(Knobs(freeze=True)), threading.Event()
        threading.Thread(target=lambda: (faults.before(Caller()), done.set())).start()
        self.assertFalse(done.wait(0.05), "not frozen")
        faults.set(Knobs())
        self.assertTrue(done.wait(2))

    def test_capacity_is_slots_over_service_time(self):
        faults = Faults(Knobs(slots=2, service_ms=100))
        calls = [threading.Thread(target=faults.before, args=[Caller()]) for _ in range(6)]
        start = time.monotonic()
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        took = time.monotonic() - start  # three rounds of two
        self.assertGreaterEqual(took, 0.3, "six calls on two slots of 100 ms")

    def test_lifting_the_slots_frees_the_calls_that_wait_for_one(self):
        faults, done = Faults(Knobs(slots=2, service_ms=60_000)), threading.Event()
        for _ in range(2):
            threading.Thread(target=faults.before, args=[Caller()], daemon=True).start()
        until(self, lambda: faults._busy == 2)
        threading.Thread(target=lambda: (faults.before(Caller()), done.set()), daemon=True).start()
        self.assertFalse(done.wait(0.05), "there was a slot")
        self.assertEqual(faults._busy, 2)
        faults.set(Knobs())
        self.assertTrue(done.wait(5))

    def test_knobs_that_make_no_sense_are_refused_and_the_old_ones_stay(self):
        faults = Faults(Knobs(latency_ms=7))
        for wrong in (Knobs(error_pct=101), Knobs(latency_ms=-1), Knobs(code=17), Knobs(slots=-1), Knobs(service_ms=-1)):
            with self.assertRaises(Refusal):
                faults.set(wrong)
        self.assertEqual(faults.knobs.latency_ms, 7)

    def test_knobs_come_from_the_environment_an_error_code_by_name_or_by_number(self):
        self.assertEqual(env.knobs({}), Knobs())
        self.assertEqual(env.knobs({"ERROR_CODE": "14"}).code, 14)
        self.assertEqual(env.knobs({"ERROR_CODE": "RESOURCE_EXHAUSTED"}).code, 8)
        for wrong in ({"ERROR_CODE": "OOPS"}, {"ERROR_CODE": "99"}, {"LATENCY_MS": "soon"}):
            with self.assertRaises(ValueError):
                env.knobs(wrong)


if __name__ == "__main__":
    unittest.main()
