"""Pieces that were compressed one by one are one good gzip member."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.exporter.pieces import Piece, gzip_join, join


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=9).map(lambda b: b * 999)))
def test_pieces_put_together_are_read_back_as_a_single_gzip_member(plain: list[bytes]) -> None:
    pieces = [Piece.of(part) for part in plain]
    zipped = gzip_join(pieces)
    assert gzip.decompress(zipped) == b"".join(plain) == join(pieces)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert reader.decompress(zipped) == b"".join(plain)
    assert (reader.eof, reader.unused_data) == (True, b"")


def test_a_piece_may_be_used_again_anywhere() -> None:
    piece, other = Piece.of(b"device_up 1\n" * 50), Piece.of(b"device_up 0\n")
    assert gzip.decompress(gzip_join([piece, other, piece])) == join([piece, other, piece])


def test_lines_that_resemble_each_other_become_small() -> None:
    piece = Piece.of(b"".join(b'device_up{device_id="%d"} 1.0\n' % n for n in range(1000)))
    assert len(piece.deflated) < len(piece.plain) / 4
