"""The headers that steer (lettermta.submission.control)."""

from __future__ import annotations

import re

from fuzz.fuzz_header import head_of
from fuzz.promises import clean, pumped, require, swift
from lettermta.header import split_fields
from lettermta.message import Refused
from lettermta.submission.control import TAG_LENGTH, MetadataBounds, is_control, read_control

TOKENS = (
    *(b"X-Tag: |X-LM-Tag: |X-Lettermint-Route: |X-Metadata-|X-LM-Metadata-|Idempotency-Key: |Bcc: |Return-Path: |X-Lettr-".split(b"|")),
    *(b"key: value|=?utf-8?q?a=0Ab?=|=?utf-8?b?YQ==?=|: |two words|\n |\n|a-b_c|\xc3\xa9|X-LM-Preserve-Message-ID: true".split(b"|")),
)

_BOUNDS = MetadataBounds(keys=5, key_length=20, value_length=50, total=200)
_TAG = re.compile(r"[a-zA-Z0-9_-]+(\s[a-zA-Z0-9_-]+)*", re.ASCII)


def one(data: bytes) -> None:
    """Read the control headers of ``data``, as it is and pumped."""
    for octets in pumped(data):
        try:
            fields = split_fields(head_of(octets))
        except Refused:
            continue
        with swift("control headers"):
            try:
                control = read_control(fields, _BOUNDS)
            except Refused as refused:
                clean(refused.reply.text, "a reply")
                require(refused.reply.encode().endswith(b"\r\n") and refused.reply.encode().count(b"\n") == 1, "a refusal is one line")
                require(refused.reply.permanent, "a fault of the message is permanent")
                continue
        if control.tag is not None:
            require(len(control.tag) <= TAG_LENGTH and _TAG.fullmatch(control.tag), "a tag keeps to its rule")
        require(len(control.metadata) <= _BOUNDS.keys, "metadata is bounded")
        for key, value in control.metadata.items():
            require(0 < len(key) <= _BOUNDS.key_length and len(value) <= _BOUNDS.value_length, "metadata is bounded")
            require(not set(key) & set("\r\n\0"), "a key stays in its line")
        for field in fields:
            if field.key.startswith(("x-lm-", "x-metadata-", "x-lettr-")) or field.key in ("x-tag", "bcc", "x-lettermint-route"):
                require(is_control(field), "what steers never leaves")
