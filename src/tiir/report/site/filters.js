"use strict";
// The form that says which queries to list, and the pills that take a choice back. Its state is the address.
(function (tiir) {
  const { el, format, runs, href } = tiir;
  const FIELDS = ["dir", "difficulty", "tag", "run", "winner", "rule", "lo", "hi", "words", "sort", "order", "a", "b", "xlo", "xhi", "ylo", "yhi", "gap", "judged"];

  const option = (value, label) => el("option", { value }, label);
  const field = (label, input) => el("label", { class: "field" }, el("span", {}, label), input);

  const setUnlessFocused = (input, value) => {
    if (input !== document.activeElement || input.tagName === "SELECT") input.value = value;
  };

  // change(params, replace) is called with what the form then says. `sync(params)` sets it without calling back.
  function form(change) {
    const { site } = tiir;
    const many = site.runs.length > 1;
    const inputs = {
      dir: el("select", {}, option("", "Both directions"), format.directions.map((side) => option(side, format.direction(side)))),
      words: el("input", { type: "search", placeholder: "words of the caption", spellcheck: "false" }),
      run: el("select", {}, runs.options(0)),
      difficulty: el("select", {}, option("", "Any"), option("easy", "Easy: rank 1"), option("medium", `Medium: 2 to ${site.hard_after}`), option("hard", `Hard: beyond ${site.hard_after}`)),
      lo: el("input", { type: "number", min: 1, placeholder: "1", inputmode: "numeric" }),
      hi: el("input", { type: "number", min: 1, placeholder: "any", inputmode: "numeric" }),
      tag: el("select", {}, option("", "Any"), site.tags.map((tag) => option(tag, tag))),
      winner: el("select", {}, option("", "Any"), site.runs.map((run, n) => option(n, `${runs.letter(n)} · ${run.name}`)), option("tie", "None: a tie")),
      judged: el("input", { type: "checkbox", value: "1" }),
      sort: el("select", {}, option("", "As they come"), option("rank", "Rank"), many && option("gap", "Rank gap between runs"), option("margin", "Margin of the best positive"), option("suspicion", "Suspicion of a missing label")),
      order: el("select", {}, option("", "Lowest first"), option("desc", "Highest first")),
    };
    let kept = {};
    const read = () => {
      const params = { ...kept };
      for (const [name, input] of Object.entries(inputs)) params[name] = input.type === "checkbox" ? (input.checked ? "1" : "") : input.value.trim();
      if (params.run === "0") delete params.run;
      delete params.page;
      return params;
    };
    let waiting = 0;
    const node = el("form", {
      class: "filters", "aria-label": "Filter", onsubmit: (event) => event.preventDefault(),
      onchange: () => { clearTimeout(waiting); change(read(), false); },
      oninput: (event) => {
        if (event.target.tagName !== "INPUT" || event.target.type === "checkbox") return;
        clearTimeout(waiting);
        waiting = setTimeout(() => change(read(), true), 160);
      },
    },
    field("Direction", inputs.dir), field("Words", inputs.words),
    el("fieldset", {}, el("legend", {}, many ? "By the ranks of one run" : "By rank"),
      many && field("Run", inputs.run), field("Difficulty", inputs.difficulty),
      el("div", { class: "two" }, field("Rank from", inputs.lo), field("to", inputs.hi)), field("Tag", inputs.tag)),
    many && field("Best run", inputs.winner),
    el("label", { class: "check" }, inputs.judged, "Judged by me"),
    field("Sort by", inputs.sort), field("Order", inputs.order));
    const sync = (params) => {
      kept = Object.fromEntries(Object.entries(params).filter(([name]) => FIELDS.includes(name)));
      for (const [name, input] of Object.entries(inputs)) {
        if (input.type === "checkbox") input.checked = params[name] === "1";
        else if (input.type === "number") setUnlessFocused(input, tiir.whole(params[name], "", 1));
        else setUnlessFocused(input, params[name] || (name === "run" ? "0" : ""));
      }
    };
    return { node, sync, words: inputs.words };
  }

  // What is asked for, in words: [[text, names of the parameters it stands for]].
  function asked(params) {
    const f = tiir.rows.filter(params);
    const letter = runs.letter;
    const range = (low, high) => (low > 1 && high < Infinity ? `${low} to ${high}` : high < Infinity ? `1 to ${high}` : `from ${low}`);
    const limited = (low, high) => low > 1 || high < Infinity;
    const found = [];
    if (f.direction >= 0) found.push([format.direction(format.directions[f.direction]), ["dir"]]);
    if (f.words.length) found.push([`“${params.words}”`, ["words"]]);
    if (f.difficulty) found.push([`${f.difficulty} for ${letter(f.run)}`, ["difficulty"]]);
    if (limited(f.low, f.high)) found.push([`rank by ${letter(f.run)} ${range(f.low, f.high)}`, ["lo", "hi"]]);
    if (f.tag >= 0) found.push([`${tiir.site.tags[f.tag]} (${letter(f.run)})`, ["tag"]]);
    if (f.pair && limited(f.box[0], f.box[1])) found.push([`rank by ${letter(f.pair[0])} ${range(f.box[0], f.box[1])}`, ["xlo", "xhi"]]);
    if (f.pair && limited(f.box[2], f.box[3])) found.push([`rank by ${letter(f.pair[1])} ${range(f.box[2], f.box[3])}`, ["ylo", "yhi"]]);
    const rule = f.rule && f.pair ? ` by ${f.rule === "study" ? "ten places" : f.rule}` : "";
    if (f.winner !== null) found.push([`${f.winner === "tie" ? (rule ? "neither wins" : "a tie") : rule ? `${letter(f.winner)} wins` : `${letter(f.winner)} is best`}${rule}`, ["winner", "rule"]]);
    if (f.gap) found.push([`at least ${format.count(f.gap, "place")} apart`, ["gap"]]);
    if (f.judged) found.push(["judged by me", ["judged"]]);
    return found;
  }

  const without = (params, names) => Object.fromEntries(Object.entries(params).filter(([name]) => !names.includes(name) && name !== "page"));

  function pills(params) {
    const found = asked(params);
    if (!found.length) return null;
    return el("ul", { class: "pills", "aria-label": "Filters that hold" },
      found.map(([text, names]) => el("li", {}, el("a", { class: "pill", href: href("queries", null, without(params, names)), "aria-label": `Without: ${text}` }, tiir.words(text), el("span", { "aria-hidden": true }, "×")))),
      el("li", {}, el("a", { class: "pill plain", href: href("queries") }, "Clear all")));
  }

  tiir.filters = { form, asked, pills };
})((window.tiir = window.tiir || {}));
