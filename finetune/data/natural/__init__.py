"""Recordings and questions as people have them: everyday speech and sounds, asked about in everyday words."""
