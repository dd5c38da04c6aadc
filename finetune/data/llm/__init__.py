"""Language models in the data engine: they write questions, judge them and describe recordings."""
