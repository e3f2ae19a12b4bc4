"""Fixtures every part of the suite shares."""
