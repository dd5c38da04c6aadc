"""The words that the built-in voices speak."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = tuple(
    "red green blue yellow apple river mountain window table garden silver doctor music paper winter summer "
    "monday friday candle bottle market".split()
)
"""Words besides digits."""
