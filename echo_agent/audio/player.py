"""A script for pages with sound: buttons that play their stretch of the audio in the same section, and stop at its end.

A button has ``data-start`` and ``data-end``, in seconds of the recording; an ``audio`` that holds only a part of it has
``data-begin``, the second at which that part begins.
"""

PLAYER = """
let end = Infinity;
for (const audio of document.querySelectorAll("audio"))
  audio.addEventListener("timeupdate", () => { if (audio.currentTime >= end) { audio.pause(); end = Infinity; } });
for (const button of document.querySelectorAll("button"))
  button.addEventListener("click", () => {
    const audio = button.closest("section").querySelector("audio");
    const begin = audio.dataset.begin || 0;
    document.querySelectorAll("audio").forEach(other => other.pause());
    audio.currentTime = button.dataset.start - begin;
    end = button.dataset.end - begin;
    audio.play();
  });
"""
