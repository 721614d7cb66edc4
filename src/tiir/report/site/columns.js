"use strict";
// Ranked lists side by side, with lines between them that show how places shift.
(function (tiir) {
  const { el, svg, format, words, photos, href } = tiir;

  // What is known about a listed pair, as words and a sign.
  function marks(item) {
    const found = [];
    if (item.positive) found.push(el("span", { class: "mark good" }, "✓ positive"));
    if (!item.positive && item.judged === 1) found.push(el("span", { class: "mark good" }, "✓ judged right"));
    if (item.judged === -1) found.push(el("span", { class: "mark bad" }, "✗ judged wrong"));
    if (!item.positive && !item.judged && item.suspicion >= tiir.site.suspect) {
      found.push(el("span", { class: "mark maybe", title: "Looks right, but nobody labelled it" }, `? missing label ${item.suspicion.toFixed(2)}`));
    }
    return found;
  }

  function candidate(t, side, item) {
    if (side === 1) { // the candidates are photos
      return [
        el("a", { class: "item-photo", href: href("image", item.candidate) }, photos.photo(t, item.candidate)),
        el("span", { class: "item-about clamp", "aria-hidden": true }, words(photos.firstCaption(t, item.candidate))),
      ];
    }
    const row = tiir.rows.rowOf(t, 1, item.candidate);
    const image = t.captions.image[item.candidate];
    return el("div", { class: "item-caption" },
      el("a", { class: "item-owner", href: href("image", image), "aria-label": "Its own photo" }, photos.photo(t, image, { label: "" })),
      row < 0 ? photos.caption(t.captions.text[item.candidate]) : el("a", { class: "item-words", href: href("query", row) }, words(photos.cut(t.captions.text[item.candidate]) || "(an empty caption)")));
  }

  function line(t, side, item, judge) {
    return el("li", { class: `item ${item.positive ? "is-positive" : ""}`, "data-candidate": item.candidate },
      el("span", { class: "place" }, tiir.hidden("place "), format.whole(item.place)),
      candidate(t, side, item),
      el("div", { class: "item-side" }, el("span", { class: "score", title: "score" }, format.score(item.score)), marks(item), judge && judge(item)));
  }

  // title, note; items of the list; beyond: the best positive where the list ends before it; judge(item) makes its buttons
  function column(t, side, { title, note, items, beyond = [], judge }) {
    const lines = (some) => el("ol", { class: "items" }, some.map((item) => line(t, side, item, judge)));
    return el("section", { class: "column" },
      el("header", { class: "column-head" }, el("h3", {}, title), note && el("p", { class: "muted small" }, note)),
      lines(items), beyond.length > 0 && [el("p", { class: "further", "aria-hidden": true }, "⋮"), lines(beyond)]);
  }

  // Columns and, between each two, the lines of what both hold.
  function board(t, side, list) {
    const columns = list.map((each) => column(t, side, each));
    const wires = svg("svg", { class: "wires", "aria-hidden": true });
    const inner = el("div", { class: `board of-${Math.min(columns.length, 6)} ${side === 1 ? "of-photos" : "of-captions"} ${list.some((each) => each.judge) ? "" : "unjudged"}` }, columns, wires);
    const draw = () => {
      const box = inner.getBoundingClientRect();
      wires.setAttribute("width", box.width);
      wires.setAttribute("height", box.height);
      const paths = [];
      for (let n = 0; n + 1 < columns.length; n++) {
        const right = new Map([...columns[n + 1].querySelectorAll(".item")].map((item) => [item.dataset.candidate, item]));
        for (const from of columns[n].querySelectorAll(".item")) {
          const to = right.get(from.dataset.candidate);
          if (to) paths.push(wire(from, to, box));
        }
      }
      wires.replaceChildren(...paths);
    };
    new ResizeObserver(draw).observe(inner);
    const light = (event, on) => {
      const item = event.target.closest(".item");
      if (!item) return;
      for (const each of inner.querySelectorAll("[data-candidate]")) each.classList.toggle("lit", on && each.dataset.candidate === item.dataset.candidate);
    };
    inner.addEventListener("pointerover", (event) => light(event, true));
    inner.addEventListener("pointerout", (event) => light(event, false));
    return el("div", { class: "scroll board-scroll", role: "region", tabindex: 0, "aria-label": "Retrieved, by run" }, inner);
  }

  function wire(from, to, box) {
    const a = from.getBoundingClientRect();
    const b = to.getBoundingClientRect();
    const [x1, y1] = [a.right - box.left + 3, a.top + a.height / 2 - box.top];
    const [x2, y2] = [b.left - box.left - 3, b.top + b.height / 2 - box.top];
    const bend = (x2 - x1) / 2;
    return svg("path", { class: `wire ${from.classList.contains("is-positive") ? "is-positive" : ""}`, "data-candidate": from.dataset.candidate, d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
  }

  tiir.columns = { board };
})((window.tiir = window.tiir || {}));
