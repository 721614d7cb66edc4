"use strict";
// Keys. A view names its own in tiir.keys; they rest while someone types or a dialog is open.
(function (tiir) {
  const { el } = tiir;
  const KEYS = [
    ["j or →", "next query of the filtered list"],
    ["k or ←", "previous query"],
    ["u", "back to the list"],
    ["/", "search for words among the queries"],
    ["g o, g q, g c", "Overview, Queries, Compare"],
    ["?", "this help"],
    ["Esc", "close a dialog, clear a brush"],
  ];
  const PLACES = { o: "#/", q: "#/queries", c: "#/compare", s: "#/search" };
  let dialog = null;
  let went = 0; // when g was pressed

  function help() {
    if (!dialog) {
      dialog = el("dialog", { class: "sheet", "aria-labelledby": "help-title" },
        el("h2", { id: "help-title" }, "Keys"),
        el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, key), el("dd", {}, what)))),
        el("p", { class: "muted small" }, "✓ positive: the data set’s labels say so. ? missing label: it looks right, but nobody labelled it. Lines between lists follow one candidate from run to run."),
        el("form", { method: "dialog" }, el("button", { class: "button" }, "Close")));
      document.body.append(dialog);
    }
    dialog.showModal();
  }

  const typing = (target) => /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable;

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
    const { key } = event;
    const own = tiir.keys && tiir.keys[key];
    if (Date.now() - went < 1000 && PLACES[key]) tiir.go(PLACES[key]);
    else if (own) own();
    else if (key === "?") help();
    else if (key === "/") tiir.go("#/queries");
    else if (key !== "g") return;
    went = key === "g" ? Date.now() : 0;
    event.preventDefault();
  });

  tiir.help = help;
})((window.tiir = window.tiir || {}));
