"""Turns: in order, shared between steps, and ended when the answer is no longer needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Barrier, Lock, Thread, Timer

import pytest

from app import turns
from app.turns import Full, Late, Left, Line, Turn, holding, taking


def together(*tasks: Callable[[], None]) -> list[Thread]:
    threads = [Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
        time.sleep(0.02)  # in this order
    return threads


def joined(threads: list[Thread]) -> bool:
    for thread in threads:
        thread.join(20)
    return not any(thread.is_alive() for thread in threads)


def test_threads_are_served_in_order_of_arrival() -> None:
    line, order = Line(), list[int]()

    def one(number: int) -> Callable[[], None]:
        def go() -> None:
            with line.first():
                order.append(number)
                while number == 0 and len(line) < 6:
                    time.sleep(0.01)

        return go

    threads: list[Thread] = []
    for number in range(6):
        threads += together(one(number))
        while not order and len(line) <= number:
            time.sleep(0.01)
    assert joined(threads)
    assert order == list(range(6))


def test_long_work_lets_others_in_between_its_steps() -> None:
    line, order = Line(), list[str]()

    def long() -> None:
        with line.first():
            for _ in range(4):
                order.append("long")
                while len(order) == 1 and len(line) < 3:
                    time.sleep(0.01)
                turns.step()

    def short() -> None:
        with line.first():
            order.append("short")

    assert joined(together(long, short, short))
    assert order == ["long", "short", "short", "long", "long", "long"]


def test_concurrency_is_limited_and_every_thread_is_served() -> None:
    line, inside, most, guard = Line(2), 0, 0, Lock()
    barrier = Barrier(12)

    def work() -> None:
        nonlocal inside, most
        barrier.wait(20)
        with line.first():
            for _ in range(5):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with guard:
                    inside -= 1
                turns.step()

    assert joined([thread for _ in range(12) for thread in together(work)])
    assert most == 2
    assert len(line) == 0


def test_steps_within_two_lines_do_not_deadlock() -> None:
    outer, inner = Line(2), Line()

    def work() -> None:
        with outer.first():
            for _ in range(5):
                turns.step()
                with inner.first():
                    for _ in range(5):
                        turns.step()

    assert joined(together(*[work] * 6))


def test_a_full_line_refuses_and_errors_free_the_place() -> None:
    line = Line(1, most=1)
    with line.first():
        waiting = together(lambda: enter(line))
        with pytest.raises(Full), line.first():
            pass
    assert joined(waiting)
    with pytest.raises(ZeroDivisionError), line.first():
        raise ZeroDivisionError
    assert len(line) == 0


def enter(line: Line) -> None:
    with line.first():
        pass


def test_late_and_disconnected_turns_stop_waiting() -> None:
    line, lock = Line(), Lock()
    lock.acquire()
    with line.first():
        for wait in (line.first, lambda: holding(lock)):
            caught = list[type[Exception]]()

            def late(
                wait: Callable[[], object] = wait, caught: list[type[Exception]] = caught
            ) -> None:
                for turn, leaves in ((Turn.lasting(0.15), False), (Turn.lasting(60), True)):
                    if leaves:
                        Timer(0.1, turn.leave).start()
                    try:
                        with taking(turn), wait():  # type: ignore[attr-defined]
                            raise AssertionError
                    except (Late, Left) as error:
                        caught.append(type(error))

            assert joined(together(late))
            assert caught == [Late, Left]
    assert len(line) == 0


def test_pages_have_no_deadline_and_closing_ends_every_turn() -> None:
    turns.check()
    with taking(Turn.lasting(60)):
        turns.check()
        turns.closing.set()
        try:
            with pytest.raises(Late):
                turns.check()
        finally:
            turns.closing.clear()
    turns.check()
