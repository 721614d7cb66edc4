"use strict";
// The Queries view: those that a filter lets through, fifty a page.
(function (tiir) {
  const { el, format, runs, href, rows, photos, whole } = tiir;
  const PAGE = 50;

  function ranks(t, row) {
    const best = Math.min(...t.runs.map((run) => run.rank[row]));
    return el("ul", { class: "ranks" }, t.runs.map((run, n) => el("li", { class: run.rank[row] === best && t.runs.length > 1 ? "best" : null }, runs.chip(n), tiir.hidden(" rank "), format.whole(run.rank[row]))));
  }

  function tagList(mask, most = 4) {
    const tags = tiir.site.tags.filter((_, n) => mask & (2 ** n));
    if (!tags.length) return null;
    const rest = tags.length - most;
    return el("ul", { class: "tags", "aria-label": "Tags" }, tags.slice(0, most).map((tag) => el("li", { class: "tag" }, tag)), rest > 0 && el("li", { class: "tag" }, `+${rest}`));
  }

  // One line of a list of queries; also of a selection and of the places where an image is wrong.
  function line(t, row, params, run = 0) {
    const side = t.direction[row];
    const at = t.query[row];
    const image = side ? t.captions.image[at] : at;
    const text = side ? t.captions.text[at] : photos.firstCaption(t, at);
    return el("li", { class: "line" },
      el("a", { class: "line-link", href: href("query", row, params) },
        el("span", { class: "line-photo" }, photos.photo(t, image, { label: "" })),
        el("span", { class: "line-text" },
          !params.dir && el("span", { class: "kind" }, side ? "Caption" : "Photo"),
          el("span", { class: `clamp ${side ? "" : "muted"}` }, tiir.words(photos.cut(text) || "(an empty caption)")))),
      tagList(t.runs[run].tags[row]), ranks(t, row));
  }

  function pager(params, page, pages) {
    if (pages < 2) return null;
    const to = (number, label, rel) => el("a", { class: "button", rel, href: href("queries", null, { ...params, page: number > 1 ? number : "" }) }, label);
    return el("nav", { class: "pager", "aria-label": "Pages" },
      page > 1 ? to(page - 1, "Previous", "prev") : el("span", {}),
      el("span", { class: "muted" }, `Page ${format.whole(page)} of ${format.whole(pages)}`),
      page < pages ? to(page + 1, "Next", "next") : el("span", {}));
  }

  async function show(state) {
    const t = await rows.load();
    const form = tiir.filters.form((params, replace) => tiir.go(href("queries", null, params), { replace }));
    const results = el("div", { class: "results" });
    const more = el("details", { class: "filter-fold" }, el("summary", { class: "button" }, "Filter and sort"), form.node);
    const wide = matchMedia("(min-width: 901px)");
    more.open = wide.matches;
    wide.addEventListener("change", () => (more.open = wide.matches));

    function update({ params }) {
      form.sync(params);
      const found = rows.chosen(t, params);
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      const page = Math.min(whole(params.page, 1, 1), pages);
      const kept = { ...params, page: "" };
      const part = Array.from(found.subarray((page - 1) * PAGE, page * PAGE));
      results.replaceChildren(...[
        el("p", { class: "count", role: "status" }, el("b", {}, format.count(found.length, "query", "queries")), ` of ${format.whole(t.n)}`),
        tiir.site.sampled && el("p", { class: "muted small" }, format.sample()),
        tiir.filters.pills(params),
        part.length ? el("ol", { class: "lines", start: (page - 1) * PAGE + 1 }, part.map((row) => line(t, row, kept, rows.filter(params).run))) : el("p", { class: "empty" }, "No query passes all these filters."),
        pager(params, page, pages),
      ].filter(Boolean));
    }
    update(state);
    return { node: el("div", { class: "page" }, el("h1", {}, "Queries"), el("div", { class: "browse" }, el("aside", { "aria-label": "Filters" }, more), results)), update };
  }

  tiir.lines = { line, tagList };
  tiir.views = tiir.views || {};
  tiir.views.queries = { title: () => "Queries", show };
})((window.tiir = window.tiir || {}));
