"""The client's end of the control channel against a worker that says what a test lets it say."""

import queue
import tracemalloc

import pytest
import zstandard

from rch.errors import Unreachable
from rch.execute.channel import Channel, unpack_zstd
from rch.worker import protocol


class Wire:
    """Two byte streams; what is sent is kept, what is answered is put in."""

    def __init__(self):
        self.incoming = queue.Queue()
        self.sent = b""
        self.incoming.put(protocol.PREFACE + b"1\n")

    def read(self, _size):
        return self.incoming.get(timeout=10)

    def write(self, data):
        self.sent += data

    def close(self):
        self.incoming.put(b"")

    def answer(self, payload, flags=0, number=1):
        self.incoming.put(protocol.HEADER.pack(len(payload), number, flags) + payload)


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def channel(wire):
    channel = Channel(wire, "w")
    yield channel
    channel.close()


def packed(data, declared=None):
    size = len(data) if declared is None else declared
    return protocol.UNPACKED.pack(size) + zstandard.ZstdCompressor().compress(data)


class TestCompression:
    def test_a_26_starts_when_it_was_agreed_and_for_what_is_worth_it(self, wire, channel):
        body = b"x" * protocol.COMPRESS_FROM
        channel.submit("sync", {}, body)
        plain = len(wire.sent)
        assert plain > len(body)
        channel.use_zstd()
        channel.submit("sync", {}, body)
        length, _, flags = protocol.HEADER.unpack_from(wire.sent, plain)
        assert flags == protocol.FLAG_ZSTD
        assert length < 200
        assert protocol.unpack(unpack_zstd(wire.sent[plain + protocol.HEADER.size :]))[1] == body
        small = len(wire.sent)
        channel.submit("ping")
        assert protocol.HEADER.unpack_from(wire.sent, small)[2] == 0

    def test_a_26_a_compressed_answer_is_read(self, wire, channel):
        future = channel.submit("read")
        wire.answer(packed(protocol.pack({"ok": True}, b"y" * 100_000)), protocol.FLAG_ZSTD)
        assert future.result(10).body == b"y" * 100_000

    @pytest.mark.parametrize("declared", [10, 99_999, 100_001, protocol.MAX_MESSAGE, protocol.MAX_MESSAGE + 1])
    def test_a_26_a_stream_of_another_size_than_declared_ends_the_connection(self, wire, channel, declared):
        future = channel.submit("read")
        wire.answer(packed(bytes(100_000), declared), protocol.FLAG_ZSTD)
        with pytest.raises(Unreachable, match="broke the protocol"):
            future.result(10)
        with pytest.raises(Unreachable):
            channel.submit("ping")

    def test_a_26_an_endless_stream_is_read_to_what_was_declared_and_no_further(self):
        bomb = packed(bytes(256 << 20), 1000)
        assert len(bomb) < 100_000
        tracemalloc.start()
        try:
            with pytest.raises(protocol.ProtocolError, match="another size"):
                unpack_zstd(bomb)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


class TestALongAnswer:
    def test_is_refused_by_its_declared_length_before_it_is_read(self, wire, channel):
        future = channel.submit("read")
        wire.incoming.put(protocol.HEADER.pack(protocol.MAX_MESSAGE + 1, 1, 0))
        with pytest.raises(Unreachable, match="broke the protocol"):
            future.result(10)
