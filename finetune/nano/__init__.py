"""Builds the embedded echo-nano; nothing else uses it.

Its questions, scenes, reasoning and test sets are older than the generator in :mod:`echo_agent.finetune.data`. They
stay because the figures of the embedded weights rest on them, sample by sample, and go with the next embedded model.
"""
