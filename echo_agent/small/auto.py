"""echo-small by transformers' own doors: ``AutoConfig``, ``AutoModel...``, ``AutoTokenizer`` and ``AutoProcessor``.

Importing this module opens them. ``import echo_agent`` alone does not, since it loads no transformers; nor do the
modules of :mod:`echo_agent.small` that data is made with.
"""

from __future__ import annotations

from echo_agent.nano.auto import make_known
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration, SmallModel
from echo_agent.small.processor import SmallProcessor

make_known(SmallConfig, SmallModel, SmallForConditionalGeneration, SmallProcessor)
