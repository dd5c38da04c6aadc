"""How checkpoints are packed: deflated, with a dictionary of what stands in every one of them.

Most savers write the whole state at every step. It is some kilobytes, most of them names of fields: packed one by one,
without a dictionary, a conversation takes three times the room. The dictionary is part of the format: what was packed
with one is unpacked with the same and no other, so it must never be changed. (A better one would be a format of its
own, and this one would still be read.)
"""

from __future__ import annotations

import zlib

PACKED = "msgpack.words"
"""The kind of what is packed."""
PACKED_BEFORE = "msgpack.zlib"
"""The kind of what was packed before there was a dictionary."""
LARGEST = 1 << 28
"""Bytes up to which something is unpacked: a small file could claim to hold any number of them."""
BEST = 9
"""The effort that zlib makes."""

WORDS = (
    # what stands around the channels of a checkpoint
    b"\xa1v\x04\xa2ts\xd9 +00:00\xa2id\xd9$\xaechannel_values\x8c\xa8messages"
    b"\xb0channel_versions\xde\x00\x10\xa9__start__\xd9300000000000000000000000000000002.0."
    b"\xa8messages\xd9400000000000000000000000000000006.0.\xb0branch:to:listen\xd93"
    b"\xa8question\xd93\xa7choices\xd93\xaarecordings\xd93\xa3run\xd93\xa8settings\xd93\xa5spent\xd93"
    b"\xb0budget_exhausted\xd93\xa6answer\xd93\xa6status\xd93\xacchoice_index\xd93"
    b"\xb0branch:to:reason\xd93\xb2branch:to:relisten\xd93\xb0branch:to:answer\xd93"
    b"\xadversions_seen\x85\xa9__input__\x80\xa9__start__\x81\xa9__start__\xd9300000000000000000000000000000001.0."
    b"\xa6listen\x81\xb0branch:to:listen\xd93\xa6reason\x81\xb0branch:to:reason\xd93"
    b"\xa8relisten\x81\xb2branch:to:relisten\xd93\xa6answer\x81\xb0branch:to:answer\xd93"
    b"\xb0updated_channels\x93\xb0branch:to:answer\xa8messages\xa5spent"
    # the channels
    b"\xa8settings\x88\xa5model\xa7dialect\xa6inline\xa4seed\x00\xabtemperature\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\xa5top_p\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa7control\xa2on\xa6guided\xc3\xa6budget\x84\xadmax_relistens\x08"
    b"\xabmax_seconds\xc0\xaemax_new_tokens\xcd\x04\x00\xadanswer_tokens@\xa5spent\x83\xa9relistens\x01"
    b"\xa7seconds\xcb@\xa6tokens\xb0budget_exhausted\xc2\xa6answer\xc0\xa6status\xa8answered\xc0\xacchoice_index\xc0"
    b"\xa8question\xa7choices\xc0\xaarecordings\x91\x86\xa6source\xa3run\x00"
    # messages: of a user, with the question as it is asked, and of the tool
    b"\x05\x94\xbdlangchain_core.messages.human\xacHumanMessage\x86\xa7content\x92\x84\xa4type\xa5audio\xa7file_id\xd9"
    b":0-\xa9mime_type\xa9audio/wav\xa6extras\x81\xa4echo\x86\xa6source\xa6sha256\xd9@\xa8duration\xcb@"
    b"\xa5start\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xa3end\xcb@\x00\x00\x00\x00\x00\x00\xa9transform\x84\xa5speed"
    b"\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa6low_hz\xc0\xa7high_hz\xc0\xa7gain_db\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x82\xa4type\xa4text\xa4text\xd9\nChoices:\n- \nListen again to a part of the recording with the tool relisten "
    b"where that helps.\nThen write the answer alone between <answer> and </answer>, copied word for word from the "
    b"choices., as short as possible.\xb1additional_kwargs\x81\xb0echo_force_answer\xa6tokens\xa9relistens"
    b"\xb1additional_kwargs\x81\xadecho_question\x82\xa8question\xa7choices\xc0\xb1response_metadata\x80\xa4type"
    b"\xa5human\xa4name\xc0\xa2id\xd9$\xb3model_validate_json"
    b"\x05\x94\xbclangchain_core.messages.tool\xabToolMessage\x89\xa7contentHeard  to  s."
    b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa4tool\xa4name\xa8relisten\xa2id\xd9$"
    b"\xactool_call_id\xb3call__0\xa8artifact\x84\xa7outcome\xa5heard\xabobservation\xa0\xa3ref\x86\xa6source"
    b"\xa6sha256\xd9@\xa8duration\xcb@\xa5start\xcb@\xa3end\xcb@\x00\x00\x00\x00\x00\x00\xa9transform\x82\xa5speed"
    b"\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa7gain_db\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\xa7overlap\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xa6status\xa7success\xb3model_validate_json"
    # of the model, with its tokens: the most of it, and last, where zlib finds it best
    b"\x05\x94\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content<think><seg></seg></think><answer></answer>"
    b"\xb1additional_kwargs\x80\xb1response_metadata\x86\xa4echo\x83\xa6prefix\xd9@"
    b"481ba4e047079690a83dc3ce271090ee132f8af3ccfc7f7eaf1ba7abdaaef1e8\xa8segments\x92\x83\xa6origin\xa6prompt"
    b"\xa6origin\xa4tool\xa3ids\xdc\x00\xcd\x01\xcd\x01\xcd\x02\xa5audio\x91\x86\xa6source\xa6sha256\xd9@"
    b"\xa8duration\xcb@\xa5start\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xa3end\xcb@\x00\x00\x00\x00\x00\x00"
    b"\xa9transform\x82\xa5speed\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa7gain_db\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x84\xa6origin\xa7sampled\xa3ids\x92\xcd\x01\xcd\x02\xa8logprobs\x92\xcb\xbf\xcb\xbe\xa5audio\x90"
    b"\xaarerendered\xc2\xa5given\xa0\xa6finish\xa3eos\xa4stop\xa6tokens\x87\xa6prompt\xcd\xa6cached\x00\xa5audio\xcd"
    b"\xa7sampled\xa4room\xcd\xa7steered\x00\xa9near_ties\x00\xa7timings\x83\xa6encode\xcb?\xa7prefill\xcb?"
    b"\xa6decode\xcb?\xaamodel_name\xa9echo-nano\xa4type\xa2ai\xa4name\xc0\xa2id\xd9,lc_run--01a"
    b"\xaatool_calls\x91\x84\xa4name\xa8relisten\xa4args\x82\xa5start\xcb@\x00\x00\x00\x00\x00\x00\x00\xa3end\xcb@"
    b"\x00\x00\x00\x00\x00\x00\xa2id\xb3call__0\xa4type\xa9tool_call\xaatool_calls\x90\xb2invalid_tool_calls\x90"
    b"\xaeusage_metadata\x84\xacinput_tokens\xcd\xadoutput_tokens\xactotal_tokens\xcd\xb3input_token_details\x82"
    b"\xa5audio\xcd\xaacache_read\x00\xb3model_validate_json"
)
"""What most checkpoints hold, as msgpack writes it, without what differs from one to the next."""


def packed(data: bytes) -> bytes:
    """The bytes, packed with the dictionary."""
    pack = zlib.compressobj(BEST, zdict=WORDS)
    return pack.compress(data) + pack.flush()


def unpacked(kind: str, data: bytes) -> bytes:
    """What was packed, of either kind; raises ValueError where it is damaged, or too much."""
    unpack = zlib.decompressobj(zdict=WORDS) if kind == PACKED else zlib.decompressobj()
    try:
        content = unpack.decompress(data, LARGEST)
    except zlib.error as error:
        raise ValueError(f"a checkpoint that cannot be unpacked: {error}") from error
    if not unpack.eof:
        raise ValueError(f"a checkpoint that is cut off, or holds more than {LARGEST >> 20} MiB")
    return content
