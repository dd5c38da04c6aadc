"""The field's benchmarks: their layouts, their official rules beside a strict one, and their submission formats."""
