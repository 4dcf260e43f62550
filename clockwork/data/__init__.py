"""Readers of real formats, and the small embedded sets with their credits."""

from clockwork.data.audio import Clip, embedded_clips, read_clip

__all__ = ["Clip", "embedded_clips", "read_clip"]
