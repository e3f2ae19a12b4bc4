"""Pieces that were compressed one by one are one good gzip member."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.exporter.pieces import Piece, gzip_join, unzip


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=9).map(lambda b: b * 999)))
def test_pieces_put_together_are_read_back_as_a_single_gzip_member(plain: list[bytes]) -> None:
    pieces = [Piece.of(part) for part in plain]
    zipped = gzip_join(pieces)
    assert gzip.decompress(zipped) == b"".join(plain) == unzip(zipped)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert reader.decompress(zipped) == b"".join(plain)
    assert (reader.eof, reader.unused_data) == (True, b"")


def test_a_piece_may_be_used_again_anywhere() -> None:
    one, zero = b"device_up 1\n" * 50, b"device_up 0\n"
    piece, other = Piece.of(one), Piece.of(zero)
    assert gzip.decompress(gzip_join([piece, other, piece])) == one + zero + one


@given(st.binary(max_size=2000), st.integers(1, 100))
def test_a_piece_of_parts_is_the_piece_of_all_of_them(plain: bytes, size: int) -> None:
    parts = [plain[at : at + size] for at in range(0, len(plain), size)]
    piece, whole = Piece.of_parts(parts), Piece.of(plain)
    assert (piece.length, piece.checksum) == (whole.length, whole.checksum)
    assert gzip.decompress(gzip_join([piece])) == plain


def test_lines_that_resemble_each_other_become_small() -> None:
    piece = Piece.of_parts(b'device_up{device_id="%d"} 1.0\n' % n for n in range(1000))
    assert len(piece.deflated) < piece.length / 4
