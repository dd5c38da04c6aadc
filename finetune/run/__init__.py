"""The folder of a training: its lock, its checkpoints, how it stops and is resumed."""
