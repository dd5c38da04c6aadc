"""Readers of annotated audio: every one of them yields the same records, and says what it had to leave out."""
