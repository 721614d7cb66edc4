"use strict";
// The Overview: how well, where the ranks lie, why queries fail, and which run is better. Every number is a link.
(function (tiir) {
  const { el, format, runs, charts, words, href, queriesHref } = tiir;
  const KS = [1, 5, 10];

  const number = (text, address, label) => el("a", { class: "number", href: address, title: label }, text);
  const both = (draw) => el("div", { class: "pair" }, format.directions.map((side) => el("div", { class: "panel" }, el("h3", {}, format.direction(side)), draw(side))));
  const section = (id, title, lead, ...content) => el("section", { "aria-labelledby": id }, el("h2", { id }, title), lead && el("p", { class: "lead" }, lead), content);
  const scroller = (label, table) => el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, table);
  const th = (text, scope = "col", more = {}) => el("th", { scope, ...more }, text);

  function head() {
    const { dataset, protocol } = tiir.site;
    return el("div", { class: "hero" },
      el("p", { class: "eyebrow" }, `${format.count(dataset.images, "image")} · ${format.count(dataset.captions, "caption")} · ${format.count(tiir.site.runs.length, "run")}`),
      el("h1", {}, words(dataset.name), el("span", { class: "faint" }, ` / ${dataset.split}`)),
      el("p", { class: "protocol" }, el("b", {}, "Protocol "), words(protocol.title)),
      tiir.site.sampled && el("p", { class: "notice" }, format.sample()));
  }

  const KINDS = { embeddings: "dual encoder", scores: "a score for every pair", cascade: "shortlist, re-ranked" };

  function cards() {
    return el("ul", { class: "cards", "aria-label": "Runs" }, tiir.site.runs.map((run, n) => el("li", { class: `card run-${n % 6}` },
      el("h2", { class: "card-name" }, runs.label(n)),
      el("p", { class: "muted small clip" }, run.model !== run.name && words(run.model), run.model !== run.name && " · ", KINDS[run.kind] || run.kind),
      el("dl", { class: "facts" },
        run.values.rsum !== undefined && el("div", {}, el("dt", {}, "rsum"), el("dd", {}, number(format.percent(run.values.rsum), queriesHref({ run: n, sort: "rank", order: "desc" }), "All queries, worst first"), el("span", { class: "ci" }, format.interval(run.intervals.rsum)))),
        run.hub_skew && format.directions.map((side) => el("div", {}, el("dt", {}, `hub skew ${side}`), el("dd", {}, number(Number(run.hub_skew[side]).toFixed(2), hubs(n, side), "Queries where a hub takes the place"))))),
      run.warnings.length > 0 && el("ul", { class: "warnings" }, run.warnings.map((warning) => el("li", {}, words(warning)))),
      run.notes.length > 0 && el("details", { class: "small" }, el("summary", {}, format.count(run.notes.length, "note")), el("ul", {}, run.notes.map((note) => el("li", {}, words(note))))))));
  }

  const tagNumber = (tag) => tiir.site.tags.indexOf(tag);
  const hubs = (run, side) => queriesHref({ dir: side, run, tag: tagNumber("hub") < 0 ? null : "hub", sort: "rank", order: "desc" });

  function recallTable(side) {
    const columns = KS.filter((k) => tiir.site.runs.some((run) => format.known(run.values[`${side}_R@${k}`])));
    const median = tiir.site.runs.some((run) => format.known(run.values[`${side}_median_rank`]));
    return scroller(`Recall, ${format.direction(side)}`, el("table", { class: "numbers" },
      el("thead", {}, el("tr", {}, th("Run"), columns.map((k) => th(`R@${k}`)), median && th("median rank", "col", { class: "extra" }))),
      el("tbody", {}, tiir.site.runs.map((run, n) => el("tr", {}, el("th", { scope: "row" }, runs.label(n)),
        columns.map((k) => el("td", {},
          number(format.percent(run.values[`${side}_R@${k}`]), queriesHref({ dir: side, run: n, lo: 1, hi: k }), `The queries that ${run.name} answers within the first ${k}`),
          el("span", { class: "ci" }, format.interval(run.intervals[`${side}_R@${k}`])))),
        median && el("td", { class: "extra" }, number(format.whole(run.values[`${side}_median_rank`]), queriesHref({ dir: side, run: n, lo: Math.ceil(run.values[`${side}_median_rank`] || 1), sort: "rank" }), "From the median rank on")))))));
  }

  // Measures beyond recall, where the protocol gives them.
  function otherMeasures() {
    const usual = /^(i2t|t2i)_(R@(1|5|10)|median_rank)$|^rsum$/;
    const names = [...new Set(tiir.site.runs.flatMap((run) => Object.keys(run.values)))].filter((name) => !usual.test(name));
    if (!names.length) return null;
    const show = (value) => (!format.known(value) ? "–" : value < 1 ? value.toFixed(3) : value.toFixed(1));
    return el("details", { class: "more" }, el("summary", {}, "Other measures"), scroller("Other measures", el("table", { class: "numbers" },
      el("thead", {}, el("tr", {}, th("Measure"), runs.all().map((n) => th(runs.label(n))))),
      el("tbody", {}, names.map((name) => el("tr", {}, th(name.replaceAll("_", " "), "row"), tiir.site.runs.map((run, n) =>
        el("td", {}, number(show(run.values[name]), queriesHref({ dir: name.startsWith("t2i") ? "t2i" : name.startsWith("i2t") ? "i2t" : null, run: n, sort: "rank" }), "Its queries")))))))));
  }

  function asNumbers(title, columns, values, address) {
    return el("details", { class: "more" }, el("summary", {}, "As numbers"), scroller(title, el("table", { class: "numbers small" },
      el("thead", {}, el("tr", {}, th(""), runs.all().map((run) => th(runs.chip(run))))),
      el("tbody", {}, columns.map((column, n) => el("tr", {}, th(column, "row"), values.map((row, run) => el("td", {}, number(row[n], address(run, n), "Its queries")))))))));
  }

  const curvePanel = (side) => [
    charts.legend(false), charts.curves(side),
    asNumbers(`Recall at k, ${side}`, tiir.site.curves.ks.map((k) => `R@${k}`), tiir.site.curves[side].map((row) => row.map(format.percent)), (run, n) => queriesHref({ dir: side, run, lo: 1, hi: tiir.site.curves.ks[n] })),
  ];
  const histogramPanel = (side) => [
    charts.legend(true), charts.histogram(side),
    asNumbers(`Ranks, ${side}`, tiir.site.histogram.from.map(charts.binName), tiir.site.histogram[side].map((row) => row.map(format.whole)), (run, n) => queriesHref({ dir: side, run, lo: tiir.site.histogram.from[n], hi: 2 * tiir.site.histogram.from[n] - 1 })),
  ];

  function slices(side, k, most) {
    const rows = tiir.site.slices.filter((row) => row.direction === side && row.k === k);
    const tags = [...new Set(rows.map((row) => row.tag))];
    if (!tags.length) return el("p", { class: "muted" }, "No tagged queries.");
    return scroller(`Recall by tag, ${format.direction(side)}`, el("table", { class: "numbers slices" },
      el("thead", {}, el("tr", {}, th("Tag"), th("Run"), th("Queries"), th(`R@${k}`), th("Against the rest"), th("Lift"))),
      tags.map((tag) => {
        const own = rows.filter((row) => row.tag === tag);
        return el("tbody", {}, own.map((row, n) => el("tr", {},
          n === 0 && th(tag, "rowgroup", { rowspan: own.length, class: "tag-name" }),
          el("td", { class: "left" }, runs.chip(row.run)),
          el("td", {}, number(format.whole(row.n), queriesHref({ dir: side, tag, run: row.run }), `${(row.share * 100).toFixed(1)}% of the queries`)),
          el("td", {}, number(format.percent(row.recall), queriesHref({ dir: side, tag, run: row.run, lo: 1, hi: k }), `95% ${format.interval([row.low, row.high])}; the rest ${format.percent(row.rest_recall)}`)),
          el("td", { class: "plot" }, charts.interval(row.difference, row.difference_low, row.difference_high, most, row.run), el("span", { class: "plot-number" }, format.signed(row.difference))),
          el("td", {}, number(format.times(row.lift), queriesHref({ dir: side, tag, run: row.run, lo: k + 1, sort: "rank", order: "desc" }), `Those beyond rank ${k}`)))));
      })));
  }

  function slicesSection(params) {
    const ks = [...new Set(tiir.site.slices.map((row) => row.k))].sort((a, b) => a - b);
    if (!ks.length) return null;
    const k = ks.includes(Number(params.k)) ? Number(params.k) : ks[ks.length - 1];
    const most = Math.max(10, ...tiir.site.slices.filter((row) => row.k === k).map((row) => Math.abs(row.difference)));
    return section("why", "Why do queries fail?", "Queries with a tag against all others: the point is the difference in recall, the line its 95% interval (hollow: zero lies inside). Lift is recall over the rest’s; below 1 the tag goes with failures.",
      el("div", { class: "segments", role: "group", "aria-label": "Cut-off" }, ks.map((each) => el("a", { href: `#/?k=${each}`, "aria-current": each === k ? "true" : null, "data-stay": true }, `R@${each}`))),
      both((side) => slices(side, k, most)));
  }

  function counted(side) {
    const rows = tiir.site.counted.filter((row) => row.direction === side);
    const ways = [...new Set(rows.map((row) => row.counting))];
    const ks = [...new Set(rows.map((row) => row.k))].sort((a, b) => a - b);
    const find = (run, way, k) => rows.find((row) => row.run === run && row.counting === way && row.k === k);
    const missing = tagNumber("missing label") < 0 ? null : "missing label";
    return scroller(`Counted recall, ${format.direction(side)}`, el("table", { class: "numbers" },
      el("thead", {}, el("tr", {}, th("Run"), th("Counting", "col", { class: "plain" }), ks.map((k) => th(`R@${k}`)))),
      runs.all().map((run) => el("tbody", {}, ways.map((way, n) => el("tr", {},
        n === 0 && el("th", { scope: "rowgroup", rowspan: ways.length }, runs.chip(run)),
        th({ labelled: "labels", judged: "+ judged", suspected: "+ suspected" }[way] || way, "row", { class: "plain" }),
        ks.map((k) => {
          const row = find(run, way, k);
          const address = way === "labelled" ? { dir: side, run, lo: 1, hi: k } : { dir: side, run, lo: k + 1, tag: missing, sort: "suspicion", order: "desc" };
          return el("td", {}, row && number(format.percent(row.recall), queriesHref(address), way === "labelled" ? "Found by the labels alone" : "Queries beyond the cut with a missing label in their list"), row && el("span", { class: "ci" }, format.interval([row.low, row.high])));
        })))))));
  }

  // Where the queries of an outcome are; winner null: neither.
  const outcomeHref = (pair, row, winner) => queriesHref({
    dir: row.direction, a: pair.a, b: pair.b, rule: row.rule === "rank" ? null : row.rule, winner: winner ?? "tie", sort: "gap", order: "desc",
  });

  const folded = (fold, content) => (fold ? el("details", { class: "more" }, el("summary", {}, "Queries that one wins"), content) : content);

  function comparison(pair) {
    const compare = (dir) => href("compare", null, { a: pair.a, b: pair.b, dir });
    return el("div", { class: "panel" },
      el("h3", { class: "versus" }, runs.label(pair.a), el("span", { class: "faint" }, "against"), runs.label(pair.b), el("a", { class: "push", href: compare("t2i") }, "Compare rank by rank")),
      el("div", { class: "pair tight" },
        el("ul", { class: "sentences" }, pair.sentences.map((sentence) => el("li", {}, el("a", { href: compare(/\bi2t\b/.test(sentence) ? "i2t" : "t2i") }, words(sentence))))),
        folded(tiir.site.comparisons.length > 1, scroller("Queries that one wins", el("table", { class: "numbers" },
          el("thead", {}, el("tr", {}, th("Queries won"), th("by", "col", { class: "plain" }), th(runs.chip(pair.a)), th(runs.chip(pair.b)), th("neither"))),
          format.directions.map((side) => el("tbody", {}, pair.outcomes.filter((row) => row.direction === side).map((row, n, all) => el("tr", {},
            n === 0 && th(format.direction(side), "rowgroup", { rowspan: all.length, class: "tag-name" }),
            th(row.rule === "study" ? "ten places" : row.rule, "row", { class: "plain" }),
            el("td", {}, number(format.whole(row.a_wins), outcomeHref(pair, row, pair.a), "Those queries")),
            el("td", {}, number(format.whole(row.b_wins), outcomeHref(pair, row, pair.b), "Those queries")),
            el("td", {}, number(format.whole(row.ties), outcomeHref(pair, row, null), "Those queries")))))))))));
  }

  tiir.outcomeHref = outcomeHref;
  tiir.views = tiir.views || {};
  tiir.views.overview = {
    title: () => "Overview",
    show: ({ params }) => el("div", { class: "page" }, head(), cards(),
      section("how", "How well does it retrieve?", "Recall at k: the share of queries with a positive among the first k, in percent, with 95% intervals. Every number leads to its queries.", both(recallTable), otherMeasures()),
      section("curves", "Recall at every cut-off", null, both(curvePanel)),
      section("ranks", "Where do the best positives lie?", "Percent of queries by the rank of their best positive.", both(histogramPanel)),
      slicesSection(params),
      tiir.site.counted.length > 0 && section("counted", "How much is hidden by missing labels?", "Recall by the data set’s labels; with pairs that people judged right; and with pairs that look right but that nobody labelled.", both(counted)),
      tiir.site.comparisons.length > 0 && section("better", "Which one is better?", "Paired tests on the same queries. “Ten places”: in the top 10 and at least ten places better, the study’s rule.", tiir.site.comparisons.map(comparison))),
  };
})((window.tiir = window.tiir || {}));
