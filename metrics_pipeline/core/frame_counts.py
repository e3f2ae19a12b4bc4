"""How many frames of a LoRaWAN device came, and how many were lost, from its frame counter. Pure.

A device numbers its frames from 0 on, with 16 bits or with 32; the number begins again when the
device is reset or joins once more. The rule, for a frame with another number than the newest:

- Up to 16,384 ahead (LoRaWAN 1.0.3, MAX_FCNT_GAP): the frames between are missing. At the end of
  the numbers (65,535 if all so far were below 65,536, else 2^32 - 1) it goes on with 0; as that
  looks like a reset too, it is only taken for it up to 1,024 ahead.
- Up to 62 behind: late if it is missing, else a copy (heard by another gateway, or sent again).
- Anything else, or a copy of frame 0 more than ten seconds after the newest: the device began
  again. What was missing is lost; nothing is, between the old numbers and the new.

A missing frame is lost once it is more than 62 behind, or at the first frame after ten minutes
without a newer one: by then nothing late is to be expected. So no total ever falls, as a counter
must not. What is not newer than the newest frame, in the hub's time, is late or a copy and nothing
else: a part of the stream that is read twice after a crash counts nothing twice.

Not seen are the frames before the first and just after a reset, and a reset that is shorter than
62 frames and ten minutes, which looks like copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.core.points import FieldValue

MAX_GAP = 16_384
MAX_GAP_AT_WRAP = 1024
LATE_FRAMES = 62
"""As many bits as a signed 64-bit field of a store holds, less one."""

NS_PER_SECOND = 1_000_000_000
COPIES_NS = 10 * NS_PER_SECOND
SETTLED_NS = 600 * NS_PER_SECOND
SHORT_COUNTERS = 2**16
LONG_COUNTERS = 2**32


@dataclass(slots=True)
class FrameCounts:
    """The frames of one device so far. `newest` is the counter of the last one, at `time_ns`.

    Of `missing`, bit n is set while the frame n + 1 before the newest may still come.
    """

    newest: int
    time_ns: int
    received: int = 1
    lost: int = 0
    duplicates: int = 0
    missing: int = 0

    @classmethod
    def from_fields(cls, fields: Mapping[str, FieldValue], time_ns: int) -> FrameCounts:
        """What `fields()` gave at `time_ns`, in another process perhaps."""
        return cls(
            newest=int(fields["frame_counter"]),
            time_ns=time_ns,
            received=int(fields["frames_received_total"]),
            lost=int(fields["frames_lost_total"]),
            duplicates=int(fields["frames_duplicate"]),
            missing=int(fields["frames_missing"]),
        )

    def fields(self) -> dict[str, FieldValue]:
        """The fields of `lorawan_devices` (`catalog.py`) that hold all there is to know."""
        return {
            "frame_counter": self.newest,
            "frames_received_total": self.received,
            "frames_lost_total": self.lost,
            "frames_duplicate": self.duplicates,
            "frames_missing": self.missing,
        }

    def count(self, counter: int, time_ns: int, is_copy: bool = False) -> None:
        """One more frame; `is_copy` if the network server called it one (`dupmsg`)."""
        silence_ns = time_ns - self.time_ns
        if silence_ns > SETTLED_NS:
            self._settle()
        ahead = self._frames_ahead(counter)
        longest = MAX_GAP if counter > self.newest else MAX_GAP_AT_WRAP
        if silence_ns <= 0:
            self._look_back(-ahead)
        elif 0 < ahead <= longest:
            self._go_on(counter, ahead)
        elif is_copy or self._may_be_late(counter, -ahead, silence_ns):
            self._look_back(-ahead)
        else:
            self._settle()
            self.newest = counter
            self.received += 1
        self.time_ns = max(self.time_ns, time_ns)

    def resume(self, counter: int, time_ns: int) -> None:
        """A frame after some of which nobody knows whether they came: none of those is lost."""
        if time_ns <= self.time_ns:
            self.count(counter, time_ns)
            return
        self._settle()
        self.newest, self.time_ns = counter, time_ns
        self.received += 1

    def _frames_ahead(self, counter: int) -> int:
        """Negative for a frame behind the newest; the shorter way round."""
        counters = LONG_COUNTERS if max(counter, self.newest) >= SHORT_COUNTERS else SHORT_COUNTERS
        ahead = (counter - self.newest) % counters
        return ahead if ahead <= counters // 2 else ahead - counters

    def _go_on(self, counter: int, ahead: int) -> None:
        missing = self.missing << ahead | (1 << ahead - 1) - 1
        self.lost += (missing >> LATE_FRAMES).bit_count()
        self.missing = missing & (1 << LATE_FRAMES) - 1
        self.newest = counter
        self.received += 1

    def _may_be_late(self, counter: int, behind: int, silence_ns: int) -> bool:
        if counter == 0 and behind and silence_ns > COPIES_NS and not self._is_missing(behind):
            return False
        return 0 <= behind <= LATE_FRAMES and silence_ns <= SETTLED_NS

    def _look_back(self, behind: int) -> None:
        if self._is_missing(behind):
            self.missing ^= 1 << behind - 1
            self.received += 1
        else:
            self.duplicates += 1

    def _is_missing(self, behind: int) -> bool:
        return 1 <= behind <= LATE_FRAMES and bool(self.missing >> behind - 1 & 1)

    def _settle(self) -> None:
        self.lost += self.missing.bit_count()
        self.missing = 0
