"""TensorBoard event files: records, checksums, and the scalars that a reader finds."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from sightline.training import events


def records(data: bytes) -> list[bytes]:
    """The payloads of a file of records, their checksums checked as the format says."""

    def unmasked(value: int) -> int:
        turned = (value - 0xA282EAD8) & 0xFFFFFFFF
        return (turned >> 17 | turned << 15) & 0xFFFFFFFF

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert unmasked(struct.unpack("<I", data[8:12])[0]) == events.crc32c(data[:8])
        payload = data[12 : 12 + length]
        assert unmasked(struct.unpack("<I", data[12 + length : 16 + length])[0]) == events.crc32c(payload)
        found.append(payload)
        data = data[16 + length :]
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    # RFC 3720, appendix B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_equals_the_test_vectors_of_the_standard(data: bytes, expected: int) -> None:
    assert events.crc32c(data) == expected


def event_type() -> Any:
    """TensorFlow's `Event`, as far as scalars go, made by the library for protocol buffers."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    kinds = {"double": 1, "float": 2, "int64": 3, "string": 9, "message": 11}
    fields = {
        "Value": [("tag", 1, "string", ""), ("simple_value", 2, "float", "")],
        "Summary": [("value", 1, "message", ".t.Value")],
        "Event": [
            *(("wall_time", 1, "double", ""), ("step", 2, "int64", "")),
            *(("file_version", 3, "string", ""), ("summary", 5, "message", ".t.Summary")),
        ],
    }
    for name, members in fields.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in members:
            repeated = (name, field) == ("Summary", "value")
            made = message.field.add(name=field, number=number, type=kinds[kind], label=3 if repeated else 1)
            if of:
                made.type_name = of
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def test_tensorboard_reads_every_scalar_of_the_event_file() -> None:
    history = [
        {"epoch": 1, "train_loss": 0.5, "val_loss": math.nan, "learning_rate": 0.1, "seconds": 2.0},
        {"epoch": 300, "train_loss": 0.25, "val_loss": 0.75, "learning_rate": 0.01, "seconds": 5.0},
    ]
    gradients = [{"epoch": 300, "layer": "blocks.0.ünïcode", "norm": 0.125, "type": "Conv2d"}]
    first, *rest = [event_type().FromString(r) for r in records(events.of_history(history, gradients, ended=1000.0))]
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 995.0)
    assert [(e.step, e.wall_time) for e in rest] == [(1, 997.0), (300, 1000.0)]
    found = [{v.tag: v.simple_value for v in e.summary.value} for e in rest]
    assert found[0] == pytest.approx({"train/loss": 0.5, "learning_rate": 0.1})
    expected = {"train/loss": 0.25, "val/loss": 0.75, "learning_rate": 0.01, "gradient/blocks.0.ünïcode": 0.125}
    assert found[1] == pytest.approx(expected)
