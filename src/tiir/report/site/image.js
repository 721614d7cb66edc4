"use strict";
// One photo: its captions, and the queries for which it is retrieved wrongly.
(function (tiir) {
  const { el, format, runs, rows, photos, words, whole } = tiir;
  const FIRST = 12;

  const lines = (t, found) => el("ol", { class: "lines" }, found.map((row) => tiir.lines.line(t, row, { dir: "t2i" })));

  function wrongly(t, found, run) {
    const list = lines(t, found.slice(0, FIRST));
    const rest = found.length > FIRST && el("button", { type: "button", class: "button", onclick: () => { list.append(...lines(t, found.slice(FIRST)).children); rest.remove(); } }, `Show the other ${found.length - FIRST}`);
    return el("section", { class: "wrongly" },
      el("h3", {}, runs.label(run), el("span", { class: "faint" }, ` ${found.length ? format.count(found.length, "caption") : "none"}`)), list, rest);
  }

  async function show({ id }) {
    const t = await rows.load();
    const image = whole(id, -1, 0, t.images.id.length - 1);
    if (image < 0) throw new Error("There is no such photo in this data set.");
    const chunk = Math.floor(image / tiir.site.chunk);
    const wrong = await Promise.all(runs.all().map(async (run) => {
      const block = await tiir.load(`wrong-${run}-${chunk}`);
      return block.rows[image - block.start];
    }));
    const own = t.ofImage[image].map((caption) => rows.rowOf(t, 1, caption)).filter((row) => row >= 0);
    const asked = rows.rowOf(t, 0, image);
    return el("div", { class: "page" },
      el("div", { class: "asked is-photo" },
        el("figure", { class: "own" }, photos.photo(t, image, { full: true })),
        el("div", { class: "asked-text" },
          el("p", { class: "eyebrow" }, "Photo"),
          el("h1", { class: "id" }, words(photos.cut(t.images.id[image]))),
          el("p", { class: "lead" }, `${format.count(t.ofImage[image].length, "caption")} of its own. `, wrong.map((found, run) => [run ? "; " : "", `${runs.letter(run)} lists it wrongly for ${format.count(found.length, "caption")}`]), "."),
          asked >= 0 && el("p", {}, el("a", { class: "button", href: tiir.href("query", asked) }, "See which captions it retrieves")))),
      el("section", { class: "its", "aria-labelledby": "its" }, el("h2", { id: "its" }, "Its captions, and the rank it gets for them"), lines(t, own)),
      el("section", { "aria-labelledby": "wrong" },
        el("h2", { id: "wrong" }, "Where it is retrieved wrongly"),
        el("p", { class: "lead" }, `Captions of other photos that list it within the first ${tiir.site.depth}. A photo with many is a hub.`),
        el("div", { class: "pair" }, wrong.map((found, run) => wrongly(t, found, run)))));
  }

  tiir.views = tiir.views || {};
  tiir.views.image = { title: ({ id }) => `Photo ${id}`, show };
})((window.tiir = window.tiir || {}));
