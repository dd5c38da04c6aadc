"""Readers of annotated audio: every one of them yields the same records, and says what it had to leave out."""

from echo_agent.finetune.data.corpora.audioset import read_audioset
from echo_agent.finetune.data.corpora.avqa import read_avqa
from echo_agent.finetune.data.corpora.desed import read_desed
from echo_agent.finetune.data.corpora.jams import read_jams, write_jams
from echo_agent.finetune.data.corpora.jsonl import read_jsonl, write_records
from echo_agent.finetune.data.corpora.musicbench import read_musicbench
from echo_agent.finetune.data.corpora.sourced import Finding, Sourced

__all__ = [
    "Finding",
    "Sourced",
    "read_audioset",
    "read_avqa",
    "read_desed",
    "read_jams",
    "read_jsonl",
    "read_musicbench",
    "write_jams",
    "write_records",
]
