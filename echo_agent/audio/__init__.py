"""Sound: files and arrays, references to stretches of them, transforms, outlines and pictures."""
