"use strict";
// Compare: one run's ranks against another's, and the queries of a chosen part.
(function (tiir) {
  const { el, format, runs, rows, href, whole } = tiir;
  const FIRST = 8;
  const NAMES = ["xlo", "xhi", "ylo", "yhi"];

  function stateOf(params) {
    const last = tiir.site.runs.length - 1;
    const a = whole(params.a, 0, 0, last);
    const b = whole(params.b, a === 0 ? 1 : 0, 0, last);
    return { a, b: a === b ? (a === 0 ? 1 : 0) : b, dir: params.dir === "i2t" ? "i2t" : "t2i" };
  }

  function pointsOf(t, { a, b, dir }) {
    const side = format.directions.indexOf(dir);
    const found = rows.select(t, rows.filter({ dir }));
    const x = Int32Array.from(found, (row) => t.runs[a].rank[row]);
    const y = Int32Array.from(found, (row) => t.runs[b].rank[row]);
    let most = 20;
    for (let n = 0; n < x.length; n++) most = Math.max(most, x[n], y[n]);
    return { rows: found, x, y, a, b, most, side };
  }

  const given = (params) => NAMES.some((name) => params[name]);
  const boxOf = (params) => (given(params) ? rows.filter({ ...params, a: "0", b: "1" }).box : null);
  const boxParams = (box) => Object.fromEntries(NAMES.map((name, n) => [name, box && box[n] !== Infinity && !(n % 2 === 0 && box[n] === 1) ? box[n] : ""]));

  // The four corners that R@10 tells apart, as links.
  function corners(points, state, k) {
    const count = [0, 0, 0, 0];
    for (let n = 0; n < points.rows.length; n++) count[(points.x[n] <= k ? 0 : 1) + (points.y[n] <= k ? 0 : 2)]++;
    const [both, onlyB, onlyA, neither] = count;
    const cell = (n, box) => el("td", {}, el("a", { class: "number", href: tiir.queriesHref({ ...state, ...box }) }, format.whole(n)), el("span", { class: "ci" }, `${format.percent((100 * n) / Math.max(points.rows.length, 1))}%`));
    return el("table", { class: "numbers" },
      el("caption", { class: "sr" }, `Queries within the first ${k} of each run`),
      el("thead", {}, el("tr", {}, el("td", {}), el("th", { scope: "col" }, runs.chip(state.b), ` within ${k}`), el("th", { scope: "col" }, runs.chip(state.b), ` beyond ${k}`))),
      el("tbody", {},
        el("tr", {}, el("th", { scope: "row" }, runs.chip(state.a), ` within ${k}`), cell(both, { xhi: k, yhi: k }), cell(onlyA, { xhi: k, ylo: k + 1 })),
        el("tr", {}, el("th", { scope: "row" }, runs.chip(state.a), ` beyond ${k}`), cell(onlyB, { xlo: k + 1, yhi: k }), cell(neither, { xlo: k + 1, ylo: k + 1 }))));
  }

  function outcomes({ a, b, dir }) {
    const pair = tiir.site.comparisons.find((each) => (each.a === a && each.b === b) || (each.a === b && each.b === a));
    if (!pair) return null;
    const [left, right] = pair.a === a ? ["a_wins", "b_wins"] : ["b_wins", "a_wins"];
    const cell = (row, n, winner) => el("td", {}, el("a", { class: "number", href: tiir.outcomeHref(pair, row, winner) }, format.whole(n)));
    return [
      el("table", { class: "numbers" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Won by"), el("th", { scope: "col" }, runs.chip(a)), el("th", { scope: "col" }, runs.chip(b)), el("th", { scope: "col" }, "neither"))),
        el("tbody", {}, pair.outcomes.filter((row) => row.direction === dir).map((row) => el("tr", {}, el("th", { scope: "row" }, row.rule === "study" ? "ten places" : row.rule), cell(row, row[left], a), cell(row, row[right], b), cell(row, row.ties, null))))),
      el("ul", { class: "sentences small" }, pair.sentences.filter((sentence) => sentence.includes(`${dir} `)).map((sentence) => el("li", {}, tiir.words(sentence)))),
    ];
  }

  async function show(first) {
    const t = await rows.load();
    let state = null;
    let points = null;
    let params = {};
    const move = (more) => tiir.go(href("compare", null, { ...state, ...boxParams(boxOf(params)), ...more }));

    const pick = (name) => el("select", { onchange: (event) => move({ [name]: event.target.value }) }, runs.options());
    const inputs = { a: pick("a"), b: pick("b"), dir: el("select", { onchange: (event) => move({ dir: event.target.value }) }, format.directions.map((side) => el("option", { value: side }, format.direction(side)))) };
    const labels = [["A", "from"], ["A", "to"], ["B", "from"], ["B", "to"]];
    const fields = NAMES.map((name) => el("input", { type: "number", min: 1, inputmode: "numeric", placeholder: name.endsWith("lo") ? "1" : "any", onchange: () => move(Object.fromEntries(NAMES.map((each, n) => [each, fields[n].value]))) }));
    const fieldLabels = labels.map(() => el("span", {}));
    const count = el("p", { class: "count", role: "status" });
    const selection = el("div", { class: "selection" });
    const tables = el("div", { class: "stack" });
    const picture = tiir.scatter({
      moving: (box) => { count.textContent = format.count(inside(box), "query", "queries"); },
      chosen: (box) => { if (box || given(params)) move(boxParams(box)); else update({ params }); },
    });

    function inside(box) {
      let n = 0;
      for (let i = 0; i < points.rows.length; i++) if (points.x[i] >= box[0] && points.x[i] <= box[1] && points.y[i] >= box[2] && points.y[i] <= box[3]) n++;
      return n;
    }

    function update(next) {
      params = next.params;
      const before = state;
      state = stateOf(params);
      if (!before || JSON.stringify(before) !== JSON.stringify(state)) points = pointsOf(t, state);
      const box = boxOf(params);
      const sides = [runs.letter(state.a), runs.letter(state.b)];
      for (const [name, input] of Object.entries(inputs)) input.value = state[name];
      fields.forEach((field, n) => { // not under the fingers of who types
        if (field !== document.activeElement) field.value = whole(params[NAMES[n]], "", 1);
      });
      fieldLabels.forEach((label, n) => { label.textContent = `Rank by ${sides[n < 2 ? 0 : 1]} ${labels[n][1]}`; });
      picture.set(points, box, `Ranks of ${format.count(points.rows.length, "query", "queries")} by ${runs.name(state.a)} against ${runs.name(state.b)}. The fields beside it choose a part.`);
      const wanted = { ...state, ...boxParams(box), sort: "gap", order: "desc" };
      const found = rows.chosen(t, Object.fromEntries(Object.entries(wanted).map(([name, value]) => [name, String(value)])));
      count.textContent = `${format.count(found.length, "query", "queries")}${box ? " chosen" : ""}`;
      selection.replaceChildren(...[
        el("div", { class: "row" }, found.length > 0 && el("a", { class: "button primary", href: tiir.queriesHref(wanted) }, `Open ${box ? "these" : "all"} as a list`), box && el("button", { type: "button", class: "button", onclick: () => move(boxParams(null)) }, "Clear")),
        found.length > 0 && el("p", { class: "muted small" }, "Largest rank gap first:"),
        found.length > 0 && el("ol", { class: "lines" }, Array.from(found.subarray(0, FIRST), (row) => tiir.lines.line(t, row, wanted, state.a))),
      ].filter(Boolean));
      tables.replaceChildren(...[corners(points, state, 10), outcomes(state)].flat().filter(Boolean));
      tiir.keys = { Escape: () => given(params) && move(boxParams(null)) };
    }
    update(first);
    return {
      update,
      node: el("div", { class: "page" }, el("h1", {}, "Compare"),
        el("p", { class: "lead" }, "Each point is a query. Draw a rectangle to choose some, or type ranks."),
        el("form", { class: "bar-form", "aria-label": "What to compare", onsubmit: (event) => event.preventDefault() },
          el("label", { class: "field" }, el("span", {}, "Run across"), inputs.a), el("label", { class: "field" }, el("span", {}, "Run upwards"), inputs.b), el("label", { class: "field" }, el("span", {}, "Direction"), inputs.dir)),
        el("div", { class: "compare" },
          el("div", { class: "stack" }, el("div", { class: "panel" }, picture.node), el("div", { class: "panel tables" }, tables)),
          el("section", { class: "chosen", "aria-label": "Chosen queries" }, el("form", { class: "four", "aria-label": "Ranks to choose", onsubmit: (event) => event.preventDefault() }, fields.map((field, n) => el("label", { class: "field" }, fieldLabels[n], field))), count, selection))),
    };
  }

  tiir.views = tiir.views || {};
  tiir.views.compare = { title: () => "Compare", show };
})((window.tiir = window.tiir || {}));
