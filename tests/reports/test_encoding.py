from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.reports.encoding import quantise, script_json, varint_bytes, varint_text, visible

finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_varints_come_back(decode, values):
    assert decode.varints(varint_text(np.array(values, np.int64))) == values


def test_a_varint_has_seven_bits_per_byte():
    assert varint_bytes(np.array([0, 127, 128, 16_384])).hex(" ") == "00 7f 80 01 80 80 01"


@given(st.lists(st.one_of(finite, st.just(float("nan"))), min_size=1), st.sampled_from([8, 16]))
def test_quantised_numbers_are_off_by_at_most_half_a_step(decode, values, bits):
    values = np.array(values, np.float32)
    payload = quantise(values, np.dtype(f"u{bits // 8}")).payload()
    back = decode.numbers(payload, bits)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    slack = decode.half_step(payload, bits) + 1e-6 * np.nanmax(np.abs(values), initial=0)
    assert np.nanmax(np.abs(back - values), initial=0) <= slack


def test_the_ends_of_the_scale_are_exact(decode):
    values = np.array([0.25, 1.0, np.nan, 0.5], np.float32)
    back = decode.numbers(quantise(values, np.uint16).payload(), 16)
    assert back[0] == 0.25
    assert back[1] == 1.0


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [np.inf]])
def test_nothing_known_is_all_missing(values):
    quantised = quantise(np.array(values, np.float32), np.uint8)
    assert (quantised.codes == 255).all()
    assert (quantised.low, quantised.high) == (0.0, 0.0)


@given(st.recursive(st.text() | finite, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_script_json_cannot_leave_its_script_and_comes_back(value):
    text = script_json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_script_json_refuses_what_json_has_no_word_for():
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))
    with pytest.raises(TypeError, match="set"):
        script_json({1})


def test_numpy_scalars_are_written_as_numbers():
    assert script_json([np.int64(3), np.float32(0.5)]) == "[3,0.5]"


def test_hostile_names_become_printable_and_short(hostile):
    for name in hostile:
        assert visible(name).isprintable()
        assert len(visible(name)) <= 160
        visible(name).encode("utf-8")


@given(st.text(st.characters(categories=["Lu", "Ll", "Nd"]), max_size=100))
def test_ordinary_names_stay_as_they_are(name):
    assert visible(name) == name


def test_base64_is_little_endian():
    payload = quantise(np.array([0.0, 1.0]), np.uint16).payload()
    assert base64.b64decode(payload["codes"]).hex(" ") == "00 00 fe ff"
