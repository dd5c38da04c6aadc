"""The built-in composer: varied questions with reasoning from an event list, with no network and no model."""
