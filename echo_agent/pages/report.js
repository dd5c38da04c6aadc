"use strict";
(() => {
  const all = (query) => [...document.querySelectorAll(query)];
  const picture = document.querySelector(".picture");
  const duration = Number(picture.dataset.duration);
  const playhead = picture.querySelector(".playhead");
  const pin = picture.querySelector(".pin");
  const seek = picture.querySelector(".seek");
  const whole = document.getElementById("sound-0");
  const clock = document.querySelector(".player output");
  let playing = null;

  document.documentElement.classList.add("js");
  for (const audio of all("audio")) audio.removeAttribute("controls");

  const share = (time) => `${(100 * Math.min(Math.max(time, 0), duration)) / duration}%`;
  const written = (time) => {
    const tenths = Math.round(time * 10), seconds = Math.floor(tenths / 10);
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
    return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds % 60)}.${tenths % 10}`;
  };

  // One listen is picked at a time: in the picture and in the reasoning.
  const pick = (number) => {
    const marked = all(`[data-listen="${number}"]`);
    for (const element of all("[data-listen].on")) element.classList.remove("on");
    for (const element of marked) element.classList.add("on");
    picture.classList.toggle("picked", marked.some((element) => picture.contains(element)));
  };
  const rest = () => pick(playing ? playing.dataset.number : "");

  // --- playing ---
  const place = (audio) => Number(audio.dataset.start) + audio.currentTime * Number(audio.dataset.speed);
  const show = () => {
    if (!playing) return;
    const time = Math.min(place(playing), Number(playing.dataset.end));
    playhead.style.left = share(time);
    if (clock) clock.value = written(time);
    if (seek.hasAttribute("role")) {
      seek.setAttribute("aria-valuenow", time.toFixed(1));
      seek.setAttribute("aria-valuetext", written(time));
    }
    if (!playing.paused) requestAnimationFrame(show);
  };
  const label = () => {
    for (const button of all(".play")) {
      const on = Boolean(playing) && !playing.paused && button.dataset.play === playing.dataset.number;
      button.classList.toggle("playing", on);
      button.setAttribute("aria-pressed", String(on));
    }
  };
  const play = (number, from) => {
    const audio = document.getElementById(`sound-${number}`);
    if (!audio) return;
    if (playing && playing !== audio) playing.pause();
    playing = audio;
    if (from !== undefined) audio.currentTime = from;
    else if (audio.ended) audio.currentTime = 0;
    playhead.hidden = false;
    rest();
    audio.play().catch(label);
  };
  const toggle = (number) => {
    const audio = document.getElementById(`sound-${number}`);
    if (audio && audio === playing && !audio.paused) audio.pause();
    else play(number);
  };
  for (const audio of all("audio")) {
    for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, () => { label(); show(); });
    audio.addEventListener("ended", () => { if (playing === audio) { playhead.hidden = true; playing = null; rest(); label(); } });
  }
  for (const button of all("[data-play]")) button.addEventListener("click", () => toggle(button.dataset.play));

  // --- linking ---
  for (const element of all("[data-listen]")) {
    for (const name of ["mouseenter", "focusin"]) element.addEventListener(name, () => pick(element.dataset.listen));
    for (const name of ["mouseleave", "focusout"]) element.addEventListener(name, rest);
  }
  for (const button of all(".time")) {
    const time = Number(button.dataset.time);
    const point = (on) => { pin.hidden = !on; pin.style.left = share(time); };
    for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => point(true));
    for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => point(false));
    button.addEventListener("click", () => play("0", time));
  }

  // --- the picture as a slider over the whole recording ---
  if (whole) {
    const set = { role: "slider", tabindex: "0", "aria-label": "Position in the recording", "aria-valuemin": "0",
      "aria-valuemax": duration.toFixed(1), "aria-valuenow": "0", "aria-valuetext": written(0) };
    for (const [name, value] of Object.entries(set)) seek.setAttribute(name, value);
    const stretches = all(".bar").map((bar) => bar.dataset.listen);
    seek.addEventListener("click", (event) => {
      const box = seek.getBoundingClientRect();
      play("0", (duration * (event.clientX - box.left)) / box.width);
    });
    seek.addEventListener("keydown", (event) => {
      const now = playing === whole ? whole.currentTime : 0;
      const moves = { ArrowLeft: now - 2, ArrowDown: now - 2, ArrowRight: now + 2, ArrowUp: now + 2, Home: 0,
        PageDown: now - 10, PageUp: now + 10, End: duration - 1 };
      if (event.key in moves) play("0", Math.min(Math.max(moves[event.key], 0), duration));
      else if (event.key === " " || event.key === "Enter") toggle("0");
      else if (stretches.includes(event.key)) toggle(event.key);
      else return;
      event.preventDefault();
    });
  }
})();
