"use strict";
// One query: what it asks, what each run retrieved, and why it may have failed.
(function (tiir) {
  const { el, format, runs, href, rows, photos, words, whole } = tiir;

  function walk(t, row, params) {
    const found = rows.chosen(t, params);
    const at = found.indexOf(row);
    const to = (place) => (at >= 0 && place >= 0 && place < found.length ? href("query", found[place], params) : null);
    const back = href("queries", null, params);
    const [previous, next] = [to(at - 1), to(at + 1)];
    const step = (address, key, name) => (address ? el("a", { class: "button", href: address, title: `${name} (${key})` }, name) : el("span", { class: "button", "aria-disabled": "true" }, name));
    tiir.keys = {
      j: () => next && tiir.go(next), ArrowRight: () => next && tiir.go(next),
      k: () => previous && tiir.go(previous), ArrowLeft: () => previous && tiir.go(previous),
      u: () => tiir.go(back),
    };
    const asked = tiir.filters.asked(params).map(([text]) => text).join(", ");
    return el("nav", { class: "walk", "aria-label": "Filtered list" },
      el("a", { class: "back", href: back }, `← ${format.count(found.length, "query", "queries")}`),
      asked && el("span", { class: "muted clip" }, words(asked)),
      el("span", { class: "muted push" }, at >= 0 ? `${format.whole(at + 1)} of ${format.whole(found.length)}` : "not in this list"),
      step(previous, "k", "Previous"), step(next, "j", "Next"));
  }

  function asCaption(t, at, corrected, why) {
    const image = t.captions.image[at];
    return el("div", { class: "asked" },
      el("div", { class: "asked-text" },
        el("p", { class: "eyebrow" }, "Caption ", words(photos.cut(t.captions.id[at]))),
        el("h1", { class: "said" }, photos.caption(t.captions.text[at])),
        corrected && el("p", { class: "corrected" }, el("span", { class: "tag" }, "corrected"), " ", photos.caption(corrected)),
        why, tiir.site.live && tiir.edit(t, at)),
      el("figure", { class: "own" }, el("a", { href: href("image", image) }, photos.photo(t, image, { full: true })), el("figcaption", { class: "muted small" }, "Its own photo ", words(photos.cut(t.images.id[image])))));
  }

  function asPhoto(t, at, why) {
    return el("div", { class: "asked is-photo" },
      el("figure", { class: "own" }, el("a", { href: href("image", at) }, photos.photo(t, at, { full: true }))),
      el("div", { class: "asked-text" },
        el("p", { class: "eyebrow" }, "Photo ", words(photos.cut(t.images.id[at]))),
        el("h1", {}, "Which captions describe this photo?"),
        el("ul", { class: "own-captions", "aria-label": "Its own captions" }, t.ofImage[at].map((caption) => el("li", {}, el("span", { class: "mark good" }, "✓"), " ", photos.caption(t.captions.text[caption])))), why));
  }

  // Tags and their evidence; what holds for several runs is said once.
  function evidence(lists) {
    const found = new Map();
    lists.forEach((list, run) => list.evidence.forEach(([tag, text]) => {
      const key = JSON.stringify([tag, text]);
      found.set(key, { tag, text, of: [...(found.get(key)?.of || []), run] });
    }));
    if (!found.size) return null;
    const all = lists.length;
    return el("section", { class: "evidence", "aria-labelledby": "evidence" },
      el("h2", { id: "evidence" }, "What the diagnosis says"),
      el("ul", {}, [...found.values()].map(({ tag, text, of }) => el("li", {}, el("span", { class: "tag" }, tiir.site.tags[tag]), words(text), of.length < all && of.map(runs.chip)))));
  }

  async function show({ id, params }) {
    const t = await rows.load();
    const row = whole(id, -1, 0, t.n - 1);
    if (row < 0) throw new Error("There is no such query in this data set.");
    const side = t.direction[row];
    const at = t.query[row];
    const lists = await Promise.all(runs.all().map((run) => rows.list(run, row)));
    const pairOf = (candidate) => (side ? [candidate, at] : [at, candidate]);
    const columns = lists.map((list, run) => {
      const rank = t.runs[run].rank[row];
      const judge = (item) => tiir.judge.buttons(t, ...pairOf(item.candidate), run, item.place);
      const beyond = rank > list.items.length;
      return {
        title: runs.label(run), items: list.items, judge,
        note: el("span", { class: rank <= tiir.site.hard_after ? "rank-note" : "rank-note is-hard" }, `best positive at rank ${format.whole(rank)}`),
        beyond: beyond ? [{ candidate: list.best, place: rank, score: list.bestScore, positive: true, suspicion: -1, judged: 0 }] : [],
      };
    });
    return el("div", { class: "page query" }, walk(t, row, params),
      side ? asCaption(t, at, lists.map((list) => list.corrected).find(Boolean), evidence(lists)) : asPhoto(t, at, evidence(lists)),
      el("section", { class: "retrieved", "aria-labelledby": "retrieved" },
        el("h2", { id: "retrieved" }, "What was retrieved"),
        el("p", { class: "lead" }, `${t.positives[row] === 1 ? "One positive" : `${t.positives[row]} positives`}, framed and ticked. Lines follow a candidate from list to list.`),
        tiir.columns.board(t, side, columns)));
  }

  tiir.views = tiir.views || {};
  tiir.views.query = { title: ({ id }) => `Query ${id}`, show };
})((window.tiir = window.tiir || {}));
