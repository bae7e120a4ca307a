"""The kept log: positions stay what they were, whatever happens to the file behind them."""

import os

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rch.daemon.joblog import PACK_BYTES, JobLog, whole_frames
from rch.worker.protocol import LOG_HEADER, log_frame, log_frames


def read_all(log, start=0, limit=65536):
    data = b""
    while chunk := log.read(start + len(data), limit):
        data += chunk
    return data


class TestTheKeptLog:
    def test_gives_back_whole_frames_from_any_frame_boundary(self, tmp_path):
        frames = [log_frame(1, b"one\n", 1), log_frame(2, b"two\n", 2), log_frame(1, b"", 3)]
        log = JobLog(str(tmp_path))
        log.append(b"".join(frames))
        assert read_all(log) == b"".join(frames)
        assert read_all(log, len(frames[0])) == b"".join(frames[1:])

    def test_a_frame_larger_than_the_limit_still_comes_whole(self, tmp_path):
        log = JobLog(str(tmp_path))
        log.append(log_frame(1, b"x" * 60_000, 1))
        assert len(log.read(0, limit=100)) == LOG_HEADER.size + 60_000

    def test_an_offset_behind_the_end_is_an_error_not_an_empty_answer(self, tmp_path):
        log = JobLog(str(tmp_path))
        log.append(log_frame(1, b"x", 1))
        with pytest.raises(ValueError, match="behind the end"):
            log.read(log.size + 1)

    def test_os_03_a_frame_cut_by_a_crash_is_fetched_again(self, tmp_path):
        whole, cut = log_frame(1, b"whole", 1), log_frame(1, b"cut off", 2)
        (tmp_path / "log").write_bytes(whole + cut[:-3])
        log = JobLog(str(tmp_path))
        assert log.size == len(whole)
        log.append(cut)
        assert read_all(log) == whole + cut

    def test_a_26_packing_keeps_every_offset(self, tmp_path):
        frames = [log_frame(1 + i % 2, os.urandom(3000), i) for i in range(1000)]
        log = JobLog(str(tmp_path))
        log.append(b"".join(frames))
        log.end()
        log.pack()
        again = JobLog(str(tmp_path))
        assert not (tmp_path / "log").exists()
        assert again.size == sum(map(len, frames))
        position = sum(map(len, frames[:700]))
        assert read_all(again, position) == b"".join(frames[700:])
        assert list(log_frames(read_all(again)))[123][0] == 2

    def test_a_26_a_read_unpacks_at_most_one_frame_beyond_its_range(self, tmp_path, monkeypatch):
        frames = [log_frame(1, os.urandom(3000), i) for i in range(1000)]
        log = JobLog(str(tmp_path))
        log.append(b"".join(frames))
        log.end()
        log.pack()
        again = JobLog(str(tmp_path))
        unpacked = []
        real = zstandard.ZstdDecompressor

        class Counted:
            def decompress(self, data, max_output_size):
                unpacked.append(max_output_size)
                return real().decompress(data, max_output_size=max_output_size)

        monkeypatch.setattr("rch.daemon.joblog.zstandard.ZstdDecompressor", Counted)
        assert len(again._rows()) > 2
        data = again.read(sum(map(len, frames[:500])), 5000)
        assert data == frames[500]
        assert len(unpacked) <= 2
        assert sum(unpacked) <= 2 * PACK_BYTES

    def test_packing_twice_changes_nothing(self, tmp_path):
        log = JobLog(str(tmp_path))
        log.append(log_frame(1, b"x", 1))
        log.end()
        log.pack()
        log.pack()
        assert read_all(JobLog(str(tmp_path))) == log_frame(1, b"x", 1)

    def test_files_are_private(self, tmp_path):
        log = JobLog(str(tmp_path / "job"))
        log.append(log_frame(1, b"x", 1))
        log.pack()
        assert {os.stat(tmp_path / "job" / n).st_mode & 0o077 for n in os.listdir(tmp_path / "job")} == {0}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 2000))
def test_whole_frames_never_counts_a_part(payloads, cut):
    data = b"".join(log_frame(1, p, 0) for p in payloads)
    end = whole_frames(data[:cut])
    assert end <= min(cut, len(data))
    assert (
        b"".join(p for _, _, p in log_frames(data[:end]))
        == b"".join(payloads)[: sum(len(p) for _, _, p in log_frames(data[:end]))]
    )
