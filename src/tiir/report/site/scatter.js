"use strict";
// Every query as a point: its rank by one run against its rank by another, both on log axes. A rectangle drawn on it
// (mouse, pen or finger) chooses ranks.
(function (tiir) {
  const { el, runs } = tiir;
  const EDGE = { left: 52, right: 14, top: 14, bottom: 46 };
  const TICKS = [1, 10, 100, 1000, 10000, 100000];

  // The same for the same row, so that points do not dance: between -1 and 1.
  const noise = (row, salt) => (((Math.imul(row + 1, 2654435761 + salt * 40503) >>> 8) % 2000) / 1000) - 1;

  // chosen(box) is called when a rectangle is finished, moving(box) while it is drawn; box = [xlo, xhi, ylo, yhi]
  function scatter({ chosen, moving }) {
    const canvas = el("canvas", { class: "scatter", role: "img" });
    const holder = el("div", { class: "scatter-box" }, canvas);
    let points = null; // {rows, x, y, a, b, most}
    let box = null;
    let drag = null;
    let size = 0;

    const span = () => size - EDGE.left - EDGE.right;
    const tall = () => size - EDGE.top - EDGE.bottom;
    const ends = () => [Math.log(0.8), Math.log(points.most * 1.25)];
    const along = (rank) => (Math.log(rank) - ends()[0]) / (ends()[1] - ends()[0]);
    const px = (rank) => EDGE.left + along(rank) * span();
    const py = (rank) => EDGE.top + (1 - along(rank)) * tall();
    const rankAt = (share) => Math.exp(ends()[0] + Math.max(0, Math.min(1, share)) * (ends()[1] - ends()[0]));

    function colour(name) {
      return getComputedStyle(holder.querySelector(`[data-colour="${name}"]`)).color;
    }
    for (const name of ["ink", "muted", "line", "accent", "sheet"]) holder.append(el("i", { "data-colour": name, class: `colour-${name}`, hidden: true }));

    function draw() {
      if (!points || !size) return;
      const scale = devicePixelRatio || 1;
      canvas.width = canvas.height = Math.round(size * scale);
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      axes(pen);
      cloud(pen);
      if (box) rectangle(pen);
    }

    function axes(pen) {
      pen.font = "12px Arial, sans-serif";
      pen.lineWidth = 1;
      for (const rank of TICKS.filter((tick) => tick <= points.most * 1.2)) {
        pen.strokeStyle = colour("line");
        pen.beginPath();
        pen.moveTo(px(rank), EDGE.top); pen.lineTo(px(rank), size - EDGE.bottom);
        pen.moveTo(EDGE.left, py(rank)); pen.lineTo(size - EDGE.right, py(rank));
        pen.stroke();
        pen.fillStyle = colour("muted");
        pen.textAlign = "center"; pen.fillText(rank.toLocaleString("en"), px(rank), size - EDGE.bottom + 18);
        pen.textAlign = "right"; pen.fillText(rank.toLocaleString("en"), EDGE.left - 8, py(rank) + 4);
      }
      pen.strokeStyle = colour("muted");
      pen.setLineDash([4, 4]);
      pen.beginPath(); pen.moveTo(px(0.8), py(0.8)); pen.lineTo(px(points.most * 1.25), py(points.most * 1.25)); pen.stroke();
      pen.setLineDash([]);
      pen.fillStyle = colour("muted");
      pen.textAlign = "center"; pen.fillText(`rank by ${runs.letter(points.a)}`, EDGE.left + span() / 2, size - 8);
      pen.save(); pen.translate(12, EDGE.top + tall() / 2); pen.rotate(-Math.PI / 2); pen.fillText(`rank by ${runs.letter(points.b)}`, 0, 0); pen.restore();
    }

    function cloud(pen) {
      const { rows, x, y } = points;
      const dot = rows.length > 8000 ? 1.6 : 2.6;
      const faint = Math.max(0.12, Math.min(0.6, 1500 / Math.max(rows.length, 1)));
      const [ink, accent] = [colour("ink"), colour("accent")];
      for (const inside of [false, true]) {
        pen.fillStyle = inside ? accent : ink;
        pen.globalAlpha = inside ? Math.min(0.9, faint * 2) : box ? faint * 0.45 : faint;
        for (let n = 0; n < rows.length; n++) {
          const within = Boolean(box) && x[n] >= box[0] && x[n] <= box[1] && y[n] >= box[2] && y[n] <= box[3];
          if (within !== inside) continue;
          pen.fillRect(px(x[n] * (1 + 0.09 * noise(rows[n], 0))) - dot / 2, py(y[n] * (1 + 0.09 * noise(rows[n], 1))) - dot / 2, dot, dot);
        }
      }
      pen.globalAlpha = 1;
      corner(pen, `${runs.letter(points.a)} is better`, EDGE.left + 30, EDGE.top + 34);
      corner(pen, `${runs.letter(points.b)} is better`, size - EDGE.right - 90, size - EDGE.bottom - 40);
    }

    function corner(pen, text, x, y) {
      pen.font = "600 13px Arial, sans-serif";
      pen.textAlign = "left";
      pen.fillStyle = colour("sheet");
      pen.globalAlpha = 0.85;
      pen.fillRect(x - 5, y - 14, pen.measureText(text).width + 10, 20);
      pen.globalAlpha = 1;
      pen.fillStyle = colour("ink");
      pen.fillText(text, x, y);
    }

    function rectangle(pen) {
      const half = (rank, up) => (rank === Infinity ? points.most * 1.25 : up ? rank * 1.09 : Math.max(0.8, rank * 0.91));
      const [left, right] = [px(half(box[0], false)), px(half(box[1], true))];
      const [low, high] = [py(half(box[2], false)), py(half(box[3], true))];
      pen.strokeStyle = colour("accent");
      pen.lineWidth = 1.5;
      pen.strokeRect(left, high, Math.min(right, size - EDGE.right) - left, low - high);
    }

    function place(event) {
      const edge = canvas.getBoundingClientRect();
      return [(event.clientX - edge.left - EDGE.left) / span(), 1 - (event.clientY - edge.top - EDGE.top) / tall()];
    }

    function dragged(event) {
      const [x, y] = place(event);
      const lowest = (share) => Math.max(1, Math.ceil(rankAt(share)));
      return [
        lowest(Math.min(x, drag[0])), Math.max(1, Math.floor(rankAt(Math.max(x, drag[0])))),
        lowest(Math.min(y, drag[1])), Math.max(1, Math.floor(rankAt(Math.max(y, drag[1])))),
      ];
    }

    canvas.addEventListener("pointerdown", (event) => {
      if (!points || event.button) return;
      canvas.setPointerCapture(event.pointerId);
      drag = place(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) return;
      box = dragged(event);
      moving(box);
      draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!drag) return;
      const [x, y] = place(event);
      const tiny = Math.hypot((x - drag[0]) * span(), (y - drag[1]) * tall()) < 5;
      const done = tiny ? null : dragged(event);
      drag = null;
      chosen(done);
    });
    canvas.addEventListener("pointercancel", () => { drag = null; chosen(null); });

    new ResizeObserver(([entry]) => {
      size = Math.floor(entry.contentRect.width);
      draw();
    }).observe(holder);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => {
      if (holder.isConnected) return draw();
      removeEventListener("tiir-theme", again);
      return dark.removeEventListener("change", again);
    };
    addEventListener("tiir-theme", again);
    dark.addEventListener("change", again);

    return {
      node: holder,
      set: (next, nextBox, label) => {
        points = next;
        box = nextBox;
        canvas.setAttribute("aria-label", label);
        draw();
      },
    };
  }

  tiir.scatter = scatter;
})((window.tiir = window.tiir || {}));
