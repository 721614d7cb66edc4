"use strict";
// The queries as typed arrays, and which of them a filter lets through: 30,000 rows in a few milliseconds.
(function (tiir) {
  const { whole } = tiir;
  const SORTS = ["place", "rank", "gap", "margin", "suspicion"];
  let table = null;

  // {n, direction, query, positives, runs: [{rank, margin, tags, suspicion}], captions, images, texts}
  async function load() {
    if (table) return table;
    const [queries, captions, images] = await Promise.all(["queries", "captions", "images"].map(tiir.load));
    table = {
      n: queries.query.length,
      direction: Uint8Array.from(queries.direction),
      query: Int32Array.from(queries.query),
      positives: Int32Array.from(queries.positives),
      runs: queries.runs.map((run) => ({
        rank: Int32Array.from(run.rank),
        margin: Float32Array.from(run.margin, (value) => value ?? NaN), // null: nothing to compare with
        tags: Uint32Array.from(run.tags),
        suspicion: Float32Array.from(run.suspicion),
      })),
      captions,
      images,
      ofImage: captionsOfImages(captions.image, images.id.length),
      texts: null,
    };
    return table;
  }

  function captionsOfImages(image, n) {
    const found = Array.from({ length: n }, () => []);
    image.forEach((owner, caption) => found[owner].push(caption));
    return found;
  }

  // The row of a query by its side (0 image, 1 caption) and position; -1 where it is no query.
  function rowOf(t, side, position) {
    if (!t.rows) {
      t.rows = [new Int32Array(t.images.id.length).fill(-1), new Int32Array(t.captions.id.length).fill(-1)];
      for (let row = 0; row < t.n; row++) t.rows[t.direction[row]][t.query[row]] = row;
    }
    return t.rows[side][position];
  }

  // What the words of a filter are looked for in; made when first asked for.
  function texts(t) {
    t.texts ||= Array.from(t.query, (at, row) =>
      (t.direction[row] ? t.captions.text[at] : t.ofImage[at].map((caption) => t.captions.text[caption]).join("\n")).toLowerCase());
    return t.texts;
  }

  // A filter as the address gives it, made whole; what makes no sense is left out.
  function filter(params) {
    const n = tiir.site.runs.length;
    const pair = [whole(params.a, null, 0, n - 1), whole(params.b, null, 0, n - 1)];
    return {
      direction: tiir.format.directions.indexOf(params.dir),
      run: whole(params.run, 0, 0, n - 1),
      difficulty: ["easy", "medium", "hard"].includes(params.difficulty) ? params.difficulty : null,
      tag: tiir.site.tags.indexOf(params.tag),
      pair: pair.includes(null) || pair[0] === pair[1] ? null : pair,
      rule: /^(R@\d{1,6}|study)$/.test(params.rule) ? params.rule : null,
      winner: params.winner === "tie" ? "tie" : whole(params.winner, null, 0, n - 1),
      low: whole(params.lo, 1, 1),
      high: whole(params.hi, Infinity, 1),
      box: [whole(params.xlo, 1, 1), whole(params.xhi, Infinity, 1), whole(params.ylo, 1, 1), whole(params.yhi, Infinity, 1)],
      gap: whole(params.gap, 0),
      judged: params.judged === "1",
      words: (params.words || "").toLowerCase().split(/\s+/).filter(Boolean),
      sort: SORTS.includes(params.sort) ? params.sort : "place",
      down: params.order === "desc",
    };
  }

  // The rows that pass, in the filter's order, as Int32Array.
  function select(t, f) {
    const { rank, tags } = t.runs[f.run];
    const compared = f.pair || tiir.runs.all();
    const ranks = compared.map((run) => t.runs[run].rank);
    const wins = f.rule && f.pair ? byRule(f.rule) : winner;
    const bit = f.tag >= 0 ? 2 ** f.tag : 0;
    const hard = tiir.site.hard_after;
    const [low, high] = { easy: [1, 1], medium: [2, hard], hard: [hard + 1, Infinity] }[f.difficulty] || [1, Infinity];
    const from = Math.max(low, f.low);
    const to = Math.min(high, f.high);
    const searched = f.words.length ? texts(t) : null;
    const judged = f.judged ? tiir.judge.rows(t) : null;
    const kept = new Int32Array(t.n);
    let n = 0;
    for (let row = 0; row < t.n; row++) {
      if (f.direction >= 0 && t.direction[row] !== f.direction) continue;
      if (rank[row] < from || rank[row] > to) continue;
      if (bit && !(tags[row] & bit)) continue;
      if (f.winner !== null && wins(ranks, compared, row) !== f.winner) continue;
      if (f.gap && gap(ranks, row) < f.gap) continue;
      if (f.pair && !inBox(f, ranks, row)) continue;
      if (searched && !f.words.every((word) => searched[row].includes(word))) continue;
      if (judged && !judged.has(row)) continue;
      kept[n++] = row;
    }
    return order(t, f, ranks, kept.subarray(0, n));
  }

  function inBox({ box }, ranks, row) {
    const x = ranks[0][row];
    const y = ranks[1][row];
    return x >= box[0] && x <= box[1] && y >= box[2] && y <= box[3];
  }

  // The run that is strictly better than all others compared, or "tie".
  function winner(ranks, compared, row) {
    let best = 0;
    let tied = false;
    for (let i = 1; i < ranks.length; i++) {
      if (ranks[i][row] < ranks[best][row]) [best, tied] = [i, false];
      else if (ranks[i][row] === ranks[best][row]) tied = true;
    }
    return tied ? "tie" : compared[best];
  }

  // The same of two runs by the rule of a comparison: "R@5", within the first five and the other not; "study", in the
  // top 10 and at least ten places better.
  function byRule(rule) {
    const k = rule === "study" ? 10 : Number(rule.slice(2));
    const places = rule === "study" ? 10 : 1;
    const beats = (one, other) => one <= k && other - one >= places && (rule === "study" || other > k);
    return ([a, b], compared, row) => (beats(a[row], b[row]) ? compared[0] : beats(b[row], a[row]) ? compared[1] : "tie");
  }

  function gap(ranks, row) {
    let low = Infinity;
    let high = 0;
    for (const rank of ranks) {
      low = Math.min(low, rank[row]);
      high = Math.max(high, rank[row]);
    }
    return high - low;
  }

  function order(t, f, ranks, rows) {
    if (f.sort === "place") return f.down ? rows.reverse() : rows;
    const run = t.runs[f.run];
    const values = f.sort === "gap" ? Float64Array.from(rows, (row) => gap(ranks, row)) : Float64Array.from(rows, (row) => run[f.sort][row]);
    const sign = f.down ? -1 : 1;
    for (let n = 0; n < values.length; n++) values[n] = Number.isNaN(values[n]) ? Infinity : sign * values[n]; // unknown: last
    const places = Uint32Array.from(rows, (_, n) => n).sort((a, b) => (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : a - b));
    return Int32Array.from(places, (place) => rows[place]);
  }

  let last = { key: null, rows: null };
  // The same for the parameters of an address; the last answer is kept, for walking through a list.
  function chosen(t, params) {
    const key = JSON.stringify(filter(params));
    if (last.key !== key || params.judged) last = { key, rows: select(t, filter(params)) };
    return last.rows;
  }

  // What run R retrieved for a query: {best, bestScore, items: [{candidate, score, positive, suspicion, judged}], evidence, corrected}
  async function list(run, row) {
    const chunk = await tiir.load(`lists-${run}-${Math.floor(row / tiir.site.chunk)}`);
    const at = row - chunk.start;
    return {
      best: chunk.best[at],
      bestScore: chunk.best_score[at],
      items: chunk.top[at].map((candidate, place) => ({
        candidate,
        place: place + 1,
        score: chunk.score[at][place],
        positive: Boolean((chunk.positive[at] >> place) & 1),
        suspicion: chunk.suspicion[at][place],
        judged: chunk.judged[at][place],
      })),
      evidence: chunk.evidence[at],
      corrected: chunk.corrected[at],
    };
  }

  tiir.rows = { load, filter, select, chosen, rowOf, list };
})((window.tiir = window.tiir || {}));
