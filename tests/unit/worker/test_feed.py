"""stdin of the job, without a job: a pipe and a terminal on one side, what came over the channel on the other."""

import os
import selectors

import pytest

from rch.worker._feed import Feed


@pytest.fixture
def feed():
    with selectors.DefaultSelector() as selector:
        yield Feed(selector, lambda: None)


def pipe(feed):
    reading, writing = os.pipe()
    feed.begin(has_input=True)
    feed.into_pipe(writing)
    os.set_blocking(reading, False)
    return reading


class TestTheFeed:
    def test_brings_what_came_before_the_command_and_its_end(self, feed):
        assert feed.take(b"early", ended=True) == 5
        reading = pipe(feed)
        assert os.read(reading, 100) == b"early"
        assert os.read(reading, 100) == b""

    def test_tells_a_second_command_of_the_end_too(self, feed):
        first = pipe(feed)
        feed.take(b"", ended=True)
        assert os.read(first, 100) == b""
        feed.close()
        assert os.read(pipe(feed), 100) == b""

    def test_takes_no_more_than_it_can_hold_and_goes_on_when_there_is_room(self, feed):
        reading = pipe(feed)
        data = bytes(3 << 20)
        taken = feed.take(data, ended=False)
        assert 1 << 20 <= taken < len(data)
        while taken < len(data):
            os.read(reading, 1 << 20)
            taken += feed.take(data[taken:], ended=False)
        assert feed.total == len(data)

    def test_takes_all_into_nothing_once_the_job_has_closed_its_end(self, feed):
        os.close(pipe(feed))
        feed.take(b"x", ended=False)
        assert feed.take(bytes(2 << 20), ended=True) == 2 << 20
