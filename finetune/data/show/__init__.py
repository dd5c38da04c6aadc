"""Looking at a dataset: samples as pictures and as a page."""
