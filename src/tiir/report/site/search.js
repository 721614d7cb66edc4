"use strict";
// Live only: what the loaded models retrieve for words or a photo, and what an edited caption does to a rank.
(function (tiir) {
  const { el, format, runs, rows, href } = tiir;
  const DEPTH = 10;

  const listed = (found, own) => found.candidates.map((candidate, n) => ({ candidate, place: n + 1, score: found.scores[n], positive: candidate === own, suspicion: -1, judged: 0 }));

  // Each run's list; a cascade's re-ranking stands right beside its first stage's.
  function board(t, side, results) {
    const columns = results.flatMap((result) => [
      { title: runs.label(result.run), note: result.reranked ? "first stage" : null, items: listed(result) },
      result.reranked && { title: runs.label(result.run), note: el("bdi", {}, `re-ranked by ${result.reranked.by}`), items: listed(result.reranked) },
    ]).filter(Boolean);
    return tiir.columns.board(t, side, columns);
  }

  // An index misses some: how many, where it misses most.
  function approximate(results) {
    const [worst] = results.map((result) => result.approximate).filter(Boolean).sort((one, other) => one.recall - other.recall);
    return worst && el("p", { class: "muted small" }, `Approximate search (FAISS): it finds ${(Math.floor(1000 * worst.recall) / 10).toFixed(1)}% of the exact best 10, measured on ${format.count(worst.queries, "query", "queries")} of this data set.`);
  }

  async function show(first) {
    const t = await rows.load();
    const models = tiir.site.models || [];
    const answer = el("div", { class: "answer", "aria-live": "polite" });
    const input = el("input", { type: "search", "aria-label": "A sentence", placeholder: "two dogs run on a beach", maxlength: 1000 });
    const file = el("input", { type: "file", accept: "image/*", class: "sr", id: "photo-file", onchange: () => file.files[0] && photo(file.files[0]) });
    let turn = 0;

    async function ask(side, what, shown) {
      const mine = ++turn;
      answer.replaceChildren(...[shown, el("p", { class: "loading" }, "Searching …")].filter(Boolean));
      try {
        const found = await what();
        if (mine !== turn) return;
        answer.replaceChildren(...[shown, el("p", { class: "muted small" }, `${format.count(found.results.length, "run")} in ${found.seconds.toFixed(2)} s`), approximate(found.results), board(t, side, found.results)].filter(Boolean));
      } catch (error) {
        if (mine === turn) answer.replaceChildren(...[shown, el("p", { class: "notice", role: "alert" }, error.message)].filter(Boolean));
      }
    }

    function photo(chosen) {
      const url = URL.createObjectURL(chosen);
      const form = new FormData();
      form.append("photo", chosen);
      file.value = "";
      input.value = "";
      const shown = el("img", { src: url, class: "asked-photo", alt: "the photo searched for", onload: () => URL.revokeObjectURL(url), onerror: () => shown.remove() });
      return ask(0, () => tiir.api.post("search/photo", form), shown);
    }

    function update({ params }) {
      input.value = params.text || "";
      if (params.text) ask(1, () => tiir.api.post("search/text", { text: params.text, depth: DEPTH }));
      else if (++turn) answer.replaceChildren(el("p", { class: "empty" }, "Type a sentence, or drop a photo here."));
    }

    const drop = el("div", {
      class: "search",
      ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
      ondragleave: () => drop.classList.remove("over"),
      ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); if (event.dataTransfer.files[0]) photo(event.dataTransfer.files[0]); },
    },
    el("form", { class: "search-form", role: "search", onsubmit: (event) => {
      event.preventDefault();
      const address = href("search", null, { text: input.value.trim() });
      if (address === location.hash) update({ params: { text: input.value.trim() } });
      else tiir.go(address);
    } }, input, el("button", { class: "button primary" }, "Search"), el("label", { class: "button", for: "photo-file" }, "Photo …"), file),
    el("p", { class: "muted small" }, models.length ? `Searched: ${models.filter((model) => model.text || model.photo).map((model) => runs.name(model.run)).join(", ")}.` : "No model is loaded."), answer);
    if (first.params.text || !answer.childElementCount) update(first);
    return { update, node: el("div", { class: "page" }, el("h1", {}, "Search"), drop) };
  }

  // Under a caption: change its words and see where its own photo goes.
  tiir.edit = (t, caption) => {
    const text = el("textarea", { rows: 2, "aria-label": "The caption, to be changed" });
    text.value = t.captions.text[caption];
    const answer = el("div", { "aria-live": "polite" });
    const submit = async (event) => {
      event.preventDefault();
      answer.replaceChildren(el("p", { class: "muted small" }, "Scoring …"));
      try {
        const { results } = await tiir.api.post("rescore", { caption, text: text.value });
        const own = t.captions.image[caption];
        answer.replaceChildren(
          el("ul", { class: "moves" }, results.map((result) => el("li", {}, runs.label(result.run), el("span", { class: "move" }, `rank ${format.whole(result.rank_before)} → ${format.whole(result.rank_after)}`), el("span", { class: "muted" }, moved(result))))),
          tiir.columns.board(t, 1, results.map((result) => ({ title: runs.label(result.run), note: "with these words", items: listed(result, own) }))));
      } catch (error) {
        answer.replaceChildren(el("p", { class: "notice", role: "alert" }, error.message));
      }
    };
    return el("details", { class: "edit" }, el("summary", {}, "Change its words"), el("form", { class: "stack", onsubmit: submit }, text, el("div", { class: "row" }, el("button", { class: "button primary" }, "Score again"))), answer);
  };

  const moved = ({ rank_before: before, rank_after: after }) => (after === before ? "no change" : `${format.count(Math.abs(after - before), "place")} ${after < before ? "up" : "down"}`);

  tiir.views = tiir.views || {};
  tiir.views.search = { title: () => "Search", show };
})((window.tiir = window.tiir || {}));
