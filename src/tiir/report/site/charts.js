"use strict";
// Charts in SVG, drawn at the width they have. They are pictures of numbers that a table beside them holds, so screen
// readers skip them; their marks are links for the mouse.
(function (tiir) {
  const { el, svg, format, runs } = tiir;
  const HEIGHT = 250;
  const LARGEST = 100; // k of the curves
  const EDGE = { left: 40, right: 14, top: 12, bottom: 34 };

  // A picture that is drawn again when its width changes; its height is fixed, so nothing below it moves.
  function responsive(draw, height) {
    const holder = el("div", { class: "chart", style: { height: `${height}px` }, "aria-hidden": true });
    let last = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (!width || width === last) return;
      last = width;
      holder.replaceChildren(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, draw(width)));
    }).observe(holder);
    return holder;
  }

  const link = (href, title, ...marks) => svg("a", { href, tabindex: -1 }, svg("title", {}, title), marks);
  const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
  const text = (x, y, anchor, value, kind = "") => svg("text", { x, y, "text-anchor": anchor, class: kind }, value);

  function percentAxis(width, top, y, steps) {
    return steps.map((value) => [line(EDGE.left, y(value), width - EDGE.right, y(value), "grid"), text(EDGE.left - 7, y(value) + 4, "end", value)]);
  }

  // R@k of every run, one direction.
  function curves(side) {
    const ks = tiir.site.curves.ks.filter((k) => k <= LARGEST);
    const lines = tiir.site.curves[side].map((values) => values.slice(0, ks.length));
    const last = Math.log(ks[ks.length - 1]);
    return responsive((width) => {
      const x = (k) => EDGE.left + (Math.log(k) / last) * (width - EDGE.left - EDGE.right - 4);
      const y = (value) => EDGE.top + (1 - value / 100) * (HEIGHT - EDGE.top - EDGE.bottom);
      const ticks = [1, 2, 5, 10, 20, 50, 100].filter((k) => k <= ks[ks.length - 1]);
      return [
        percentAxis(width, 100, y, [0, 25, 50, 75, 100]),
        ticks.map((k) => text(x(k), HEIGHT - 14, "middle", k)),
        text(width - EDGE.right, HEIGHT - 1, "end", "k, log scale", "title"),
        lines.map((values, run) => [
          svg("path", { d: values.map((value, n) => `${n ? "L" : "M"}${x(ks[n]).toFixed(1)} ${y(value).toFixed(1)}`).join(""), class: `curve ${runs.style(run)}`, "stroke-dasharray": runs.dash(run) }),
          ks.map((k, n) => link(
            tiir.queriesHref({ dir: side, run, lo: 1, hi: k }), `${runs.name(run)}: R@${k} ${format.percent(values[n])}`,
            svg("circle", { cx: x(k), cy: y(values[n]), r: 9, class: "target" }),
            ticks.includes(k) && svg("circle", { cx: x(k), cy: y(values[n]), r: 3.2, class: `dot ${runs.style(run)}` }),
          )),
        ]),
      ];
    }, HEIGHT);
  }

  // Which run is which: a piece of its line, or a bar.
  function legend(bars) {
    const sample = (run) => svg("svg", { class: "sample", width: 26, height: 12 }, bars
      ? [svg("rect", { x: 7, y: 0, width: 12, height: 12, class: `bar ${runs.style(run)}` }), hatch({ x: 7, y: 0, width: 12, height: 12 }, run)]
      : svg("path", { d: "M0 6h26", class: `curve ${runs.style(run)}`, "stroke-dasharray": runs.dash(run) }));
    return el("ul", { class: "legend", "aria-hidden": true }, runs.all().map((run) => el("li", {}, sample(run), `${runs.letter(run)} · `, tiir.words(runs.name(run)))));
  }

  const binName = (low) => (low === 1 ? "1" : low < 512 ? `${low}–${2 * low - 1}` : low < 1024 ? `${low}+` : `${low / 1024}k+`);

  // How many queries have which rank: bins that double, a bar a run.
  function histogram(side) {
    const { from } = tiir.site.histogram;
    const counts = tiir.site.histogram[side];
    const totals = counts.map((values) => values.reduce((sum, value) => sum + value, 0) || 1);
    const largest = Math.max(...counts.map((values, run) => Math.max(...values) / totals[run])) * 100;
    const step = [2, 5, 10, 20, 25].find((size) => largest / size <= 4.5) || 25;
    const top = Math.ceil(largest / step) * step;
    return responsive((width) => {
      const place = (width - EDGE.left - EDGE.right) / from.length;
      const bar = (place * 0.78) / counts.length;
      const y = (value) => EDGE.top + (1 - value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
      const every = Math.ceil(46 / place);
      return [
        percentAxis(width, top, y, Array.from({ length: top / step + 1 }, (_, n) => n * step)),
        from.map((low, n) => n % every === 0 && text(EDGE.left + (n + 0.5) * place, HEIGHT - 14, "middle", binName(low))),
        text(width - EDGE.right, HEIGHT - 1, "end", "rank of the best positive", "title"),
        counts.map((values, run) => values.map((value, n) => {
          const height = y(0) - y((value / totals[run]) * 100);
          const box = { x: EDGE.left + n * place + place * 0.11 + run * bar, y: y(0) - height, width: Math.max(bar - 1, 1), height };
          return value > 0 && link(
            tiir.queriesHref({ dir: side, run, lo: from[n], hi: 2 * from[n] - 1 }), `${runs.name(run)}: ${format.count(value, "query", "queries")} of rank ${binName(from[n])}`,
            svg("rect", { ...box, class: `bar ${runs.style(run)}` }), hatch(box, run),
            svg("rect", { ...box, y: EDGE.top, height: y(0) - EDGE.top, class: "target" }),
          );
        })),
        line(EDGE.left, y(0), width - EDGE.right, y(0), "axis"),
      ];
    }, HEIGHT);
  }

  // Stripes that tell the bars of runs apart without colour: none, one slant, the other slant, across.
  function hatch({ x, y, width, height }, run) {
    const d = [];
    const kind = run % 4;
    for (let at = 4; kind === 3 && at < height; at += 4) d.push(`M${x} ${y + at}h${width}`);
    for (let at = 0; (kind === 1 || kind === 2) && at + width <= height; at += 5) {
      d.push(kind === 1 ? `M${x} ${y + at + width}l${width} ${-width}` : `M${x} ${y + at}l${width} ${width}`);
    }
    return d.length ? svg("path", { d: d.join(""), class: "hatch" }) : null;
  }

  // A value with its interval on a common scale of plus and minus `most` points.
  function interval(value, low, high, most, run) {
    if (!format.known(value)) return null;
    const x = (points) => `${50 + 48 * Math.max(-1, Math.min(1, points / most))}%`;
    const sure = format.known(low) && (high < 0 || low > 0);
    return svg("svg", { class: "interval", "aria-hidden": true },
      line("50%", 0, "50%", "100%", "axis"),
      format.known(low) && line(x(low), "50%", x(high), "50%", `whisker ${runs.style(run)}`),
      svg("circle", { cx: x(value), cy: "50%", r: 4.5, class: `dot ${runs.style(run)} ${sure ? "" : "unsure"}` }));
  }

  tiir.charts = { curves, histogram, legend, interval, binName };
})((window.tiir = window.tiir || {}));
