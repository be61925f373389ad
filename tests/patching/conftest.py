"""Hypothesis settings of this folder: the first call of a compiled loop may take seconds."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patching", deadline=None, max_examples=60)
settings.load_profile("patching")
