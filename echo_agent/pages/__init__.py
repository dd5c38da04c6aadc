"""Pages for a browser: the report of a run and of an evaluation, one HTML file each, and the studio."""
