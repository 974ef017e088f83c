"use strict";
const map = document.getElementById("map"), tip = document.getElementById("tip");
const points = JSON.parse(document.getElementById("points").textContent);
const dots = [...map.querySelectorAll(".p")];
const hide = () => { tip.style.display = "none"; map.classList.remove("one"); };
const show = (event) => {
  const i = dots.indexOf(event.target);
  if (i < 0) return hide();
  const [name, answer, source] = points[i];
  const image = Object.assign(new Image(), { src: source, alt: "" });
  const lines = [name, answer === null ? "support" : answer === name ? "named right"
    : "taken for " + answer].map((text) => Object.assign(document.createElement("div"),
    { textContent: text }));
  lines[0].style.fontWeight = "600";
  const words = document.createElement("div");
  words.append(...lines);
  tip.replaceChildren(image, words);
  tip.style.display = "flex";
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)) + "px";
  map.classList.add("one");
  dots.forEach((dot, j) => dot.classList.toggle("same", points[j][0] === name));
};
map.addEventListener("pointermove", show);
map.addEventListener("pointerdown", show);
map.addEventListener("pointerleave", hide);
