"use strict";
// How a run looks everywhere: a letter, a colour of Okabe and Ito, a dash and a hatch; never the colour alone.
(function (tiir) {
  const { el, words, hidden } = tiir;
  const DASHES = ["", "7 4", "8 3 2 3", "2 3", "10 3 2 3 2 3", "1 2"];

  const letter = (run) => String.fromCharCode(65 + (run % 26));
  const name = (run) => tiir.site.runs[run].name;

  tiir.runs = {
    letter,
    name,
    dash: (run) => DASHES[run % DASHES.length],
    style: (run) => `run-${run % 6}`,
    // The letter in its colour; its name for those who do not see it.
    chip: (run) => el("span", { class: `chip run-${run % 6}`, title: name(run) }, el("span", { "aria-hidden": true }, letter(run)), hidden(name(run))),
    label: (run) => el("span", { class: "run-label" }, el("span", { class: `chip run-${run % 6}`, "aria-hidden": true }, letter(run)), words(name(run))),
    all: () => tiir.site.runs.map((_, run) => run),
    options: (chosen) => tiir.site.runs.map((run, n) => el("option", { value: n, selected: n === chosen }, `${letter(n)} · ${run.name}`)),
  };
})((window.tiir = window.tiir || {}));
