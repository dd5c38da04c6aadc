"""Scenes: recordings mixed from the clips of a sound bank, with exact ground truth."""
