"""How echo-small is made: its parts from pinned packages, text first, then ears."""
