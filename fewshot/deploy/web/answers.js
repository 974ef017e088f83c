"use strict";
const cards = [...document.querySelectorAll("li")];
const [of, doubt, count] = ["of", "doubt", "count"].map((id) => document.getElementById(id));
const tests = {
  all: () => true,
  unsure: (card) => card.classList.contains("unknown") || Number(card.dataset.sure) < 80,
  unknown: (card) => card.classList.contains("unknown"),
  wrong: (card) => card.classList.contains("wrong"),
  bad: (card) => card.classList.contains("bad"),
};
function filter() {
  let shown = 0;
  for (const card of cards) {
    const wanted = tests[doubt.value](card)
      && (of.value === "" || [card.dataset.best, card.dataset.truth].includes(of.value));
    card.hidden = !wanted;
    shown += wanted;
  }
  count.textContent = `${shown} shown`;
}
of.onchange = doubt.onchange = filter;
document.getElementById("filters").hidden = false;
filter();
