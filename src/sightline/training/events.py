"""TensorBoard event files, written without TensorBoard: scalars by step.

A record is the length of its data (uint64), the masked CRC-32C of these eight bytes, the data, and the masked CRC-32C of the
data; the data is an `Event` in the wire format of protocol buffers.

Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and framework/summary.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FILE_NAME = "events.out.tfevents.sightline"
"""TensorBoard recognises event files by `tfevents` in the name."""
_POLYNOMIAL = 0x82F63B78  # Castagnoli polynomial, bits reversed
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    """Return the masked CRC that the format stores, so that data with embedded CRCs stay safe."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _varint(value: int) -> bytes:
    """Encode a non-negative integer as groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, kind: int, value: bytes) -> bytes:
    length = _varint(len(value)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + length + value


def _event(wall_time: float, step: int, rest: bytes) -> bytes:
    return _field(1, _FIXED64, struct.pack("<d", wall_time)) + _field(2, _VARINT, _varint(step)) + rest


def event_file(scalars: Iterable[tuple[float, int, Mapping[str, float]]], began: float) -> bytes:
    """Return the bytes of an event file.

    Args:
        scalars: (seconds since 1970, step from 0, values by tag, such as `val/loss`) of each event.
        began: Start of the file, in seconds since 1970.
    """
    out = [_record(_event(began, 0, _field(3, _BYTES, b"brain.Event:2")))]
    for wall_time, step, values in scalars:
        summary = b"".join(
            _field(1, _BYTES, _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", value)))
            for tag, value in values.items()
        )
        out.append(_record(_event(wall_time, step, _field(5, _BYTES, summary))))
    return b"".join(out)


def of_history(history: Sequence[Mapping[str, float]], gradients: Sequence[Mapping[str, Any]], ended: float) -> bytes:
    """Return the event file of a training: one event per epoch with scores (`train/…`, `val/…`) and gradient norms.

    Args:
        history: One row per epoch; NaN and infinite values are left out.
        gradients: Rows of epoch, layer and norm.
        ended: End of training, in seconds since 1970; the history holds the seconds of each epoch since the beginning.
    """
    norms: dict[int, dict[str, float]] = {}
    for row in gradients:
        norms.setdefault(row["epoch"], {})[f"gradient/{row['layer']}"] = row["norm"]
    began = ended - max((s for row in history if math.isfinite(s := row.get("seconds", 0.0))), default=0.0)
    moments = []
    for row in history:
        values = {_tag(key): value for key, value in row.items() if key not in ("epoch", "seconds") and math.isfinite(value)}
        seconds = row.get("seconds", 0.0)
        at = began + (seconds if math.isfinite(seconds) else 0.0)
        moments.append((at, int(row["epoch"]), {**values, **norms.get(int(row["epoch"]), {})}))
    return event_file(moments, began)


def _tag(key: str) -> str:
    """Return the tag of a column by which TensorBoard groups it: `val_loss` → `val/loss`."""
    part, _, rest = key.partition("_")
    return f"{part}/{rest}" if part in ("train", "val") else key
